use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use virtcontainers::{CopyOptions, Error, Runtime};

use super::{Done, block_on, container, runtime};
use crate::cli::{CpArgs, GlobalArgs, Side};
use crate::error::Failure;

pub(crate) fn cp(global: &GlobalArgs, args: &CpArgs) -> Done {
    let copy = Copy::of(args)?;
    let runtime = runtime(global)?;
    let options = CopyOptions {
        follow_link: args.follow_link,
        archive: args.archive,
    };
    block_on(copy.run(&runtime, options))??;
    Ok(ExitCode::SUCCESS)
}

/// A copy that can be tried.
struct Copy<'a> {
    id: vc_types::ContainerId,
    /// The path in the container.
    path: &'a str,
    host: Host<'a>,
    into_container: bool,
}

/// The other side.
enum Host<'a> {
    Path(&'a Path),
    /// An archive on a standard stream.
    Stream,
}

impl<'a> Copy<'a> {
    fn of(args: &'a CpArgs) -> Result<Self, Failure> {
        let (id, path, host, into_container) = match (&args.source, &args.destination) {
            (Side::Container { .. }, Side::Container { .. }) => {
                return Err(Failure::usage("both sides are of containers")
                    .hint("copy to the host first, or from one to the other by `-`"));
            }
            (Side::Container { id, path }, host) => (id, path, host, false),
            (host, Side::Container { id, path }) => (id, path, host, true),
            (source, destination) => {
                return Err(Failure::usage(format!(
                    "neither {} nor {} is of a container",
                    name(source),
                    name(destination)
                ))
                .hint("write one of them as ID:PATH"));
            }
        };
        if path.is_empty() {
            return Err(Failure::usage(format!("{id}: has no path after the colon")));
        }
        let host = match host {
            Side::Local(path) if path.as_os_str().is_empty() => {
                return Err(Failure::usage("the local path is empty"));
            }
            Side::Local(path) => Host::Path(path),
            _ => Host::Stream,
        };
        let terminal = match into_container {
            true => std::io::stdin().is_terminal(),
            false => std::io::stdout().is_terminal(),
        };
        if terminal && matches!(host, Host::Stream) {
            return Err(Failure::usage(
                "`-` is a tar archive, and not for a terminal",
            ));
        }
        Ok(Self {
            id: container(id)?,
            path,
            host,
            into_container,
        })
    }

    async fn run(self, runtime: &Runtime, options: CopyOptions) -> Result<(), Error> {
        let sandbox = runtime.find_container(&self.id)?;
        let sandbox = runtime.fetch_container(&sandbox, &self.id).await?;
        let (id, path) = (&self.id, self.path);
        match (self.host, self.into_container) {
            (Host::Path(local), true) => sandbox.copy_to_container(id, local, path, options).await,
            (Host::Path(local), false) => {
                sandbox.copy_from_container(id, path, local, options).await
            }
            (Host::Stream, true) => {
                let archive = std::io::stdin();
                sandbox
                    .archive_to_container(id, path, archive, options)
                    .await
            }
            (Host::Stream, false) => {
                let archive = std::io::stdout();
                sandbox
                    .archive_from_container(id, path, archive, options)
                    .await
            }
        }
    }
}

fn name(side: &Side) -> String {
    match side {
        Side::Local(path) => format!("{path:?}"),
        _ => "`-`".to_owned(),
    }
}
