use std::process::ExitCode;

use vc_types::Signal;

use super::{Done, block_on, container, fetch, runtime};
use crate::cli::{GlobalArgs, KillArgs};
use crate::error::Failure;

pub(crate) fn kill(global: &GlobalArgs, args: &KillArgs) -> Done {
    let signal: Signal = args.signal.parse().map_err(Failure::usage)?;
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    block_on(async {
        fetch(&runtime, &id)
            .await?
            .kill_container(&id, signal, args.all)
            .await
    })??;
    Ok(ExitCode::SUCCESS)
}
