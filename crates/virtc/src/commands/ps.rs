use std::process::ExitCode;

use super::{Done, block_on, container, fetch, runtime};
use crate::cli::{GlobalArgs, IdArgs};
use crate::error::Failure;
use crate::output;

/// The processes of a container. The numbers are the guest's: on the host there are no such
/// processes.
pub(crate) fn ps(global: &GlobalArgs, args: &IdArgs) -> Done {
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    let processes = block_on(async {
        fetch(&runtime, &id)
            .await?
            .process_list_container(&id)
            .await
    })?
    .map_err(Failure::from)?;
    let rows: Vec<_> = processes
        .into_iter()
        .map(|process| {
            let command = match process.args.is_empty() {
                true => format!("[{}]", process.command),
                false => process.args.join(" "),
            };
            [
                process.uid.to_string(),
                process.pid.to_string(),
                process.parent.to_string(),
                process.state,
                command,
            ]
        })
        .collect();
    let headings = ["UID", "GUEST PID", "PARENT", "STATE", "COMMAND"];
    output::table(headings, &rows)?;
    Ok(ExitCode::SUCCESS)
}
