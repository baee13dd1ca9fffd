use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use virtcontainers::Route;

use super::{Done, block_on, container, fetch, runtime};
use crate::cli::{GlobalArgs, NetworkArgs, NetworkCommand};
use crate::error::{Failure, USAGE};
use crate::output;

/// Bytes of a list of routes, many more than a guest has.
const ROUTES_BYTES_MAX: u64 = 1 << 20;

pub(crate) fn network(global: &GlobalArgs, args: &NetworkArgs) -> Done {
    let (NetworkCommand::Ls { id } | NetworkCommand::Route { id, .. }) = &args.command;
    let (runtime, id) = (runtime(global)?, container(id)?);
    block_on(async {
        let sandbox = fetch(&runtime, &id).await?;
        match &args.command {
            NetworkCommand::Ls { .. } => output::json(&sandbox.list_interfaces().await?)?,
            NetworkCommand::Route { set: None, .. } => {
                output::json(&sandbox.list_routes().await?)?;
            }
            NetworkCommand::Route {
                set: Some(file), ..
            } => {
                let routes = read(file)?;
                output::json(&sandbox.update_routes(&routes).await?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })?
}

fn read(path: &Path) -> Result<Vec<Route>, Failure> {
    let named = |failure: Failure| failure.note(format!("--set {}", path.display()));
    let plain = |error: &dyn std::error::Error| named(Failure::plain(USAGE, error));
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin()
            .take(ROUTES_BYTES_MAX)
            .read_to_string(&mut text),
        false => {
            File::open(path).and_then(|file| file.take(ROUTES_BYTES_MAX).read_to_string(&mut text))
        }
    };
    read.map_err(|error| plain(&error))?;
    serde_json::from_str(&text).map_err(|error| plain(&error))
}
