use std::process::{Child, ExitCode};

use super::{Done, container};
use crate::cli::{CreateArgs, GlobalArgs};
use crate::error::{FAILED, Failure};
use crate::stand_in::{self, Request, Task};

/// Makes a container: starts its stand-in and waits until that has made it.
pub(crate) fn create(global: &GlobalArgs, args: &CreateArgs) -> Done {
    make(global, args, false).map(|_| ExitCode::SUCCESS)
}

/// The same, and gives the process that stands for the container. In the `foreground`, a terminal
/// of the container's is ours.
///
/// # Errors
///
/// What the stand-in reports, and a pid file that cannot be written.
pub(crate) fn make(
    global: &GlobalArgs,
    args: &CreateArgs,
    foreground: bool,
) -> Result<Child, Failure> {
    let refused = [
        (args.preserve_fds > 0, "--preserve-fds"),
        (args.no_pivot, "--no-pivot"),
    ];
    if let Some((_, flag)) = refused.iter().find(|(given, _)| *given) {
        return Err(Failure::new(FAILED, format!("{flag} is not supported")));
    }
    let id = container(&args.id)?;
    let bundle = std::fs::canonicalize(&args.bundle).map_err(|error| {
        Failure::plain(FAILED, &error).note(format!("--bundle {}", args.bundle.display()))
    })?;
    let mut request = Request::new(
        id.to_string(),
        Task::Create { bundle },
        &args.console_socket,
        global,
    );
    request.foreground = foreground;
    let stand_in = stand_in::start(&request)?;
    if let Some(file) = &args.pid_file
        && let Err(failure) = stand_in::write_pid(file, stand_in.id())
    {
        // A container whose pid nobody knows is nobody's.
        if let Err(failure) = super::delete::force(global, id.as_str()) {
            failure.report();
        }
        return Err(failure);
    }
    Ok(stand_in)
}
