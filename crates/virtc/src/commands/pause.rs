use std::process::ExitCode;

use super::{Done, block_on, container, fetch, runtime};
use crate::cli::{GlobalArgs, IdArgs};

pub(crate) fn pause(global: &GlobalArgs, args: &IdArgs) -> Done {
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    block_on(async { fetch(&runtime, &id).await?.pause_container(&id).await })??;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn resume(global: &GlobalArgs, args: &IdArgs) -> Done {
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    block_on(async { fetch(&runtime, &id).await?.resume_container(&id).await })??;
    Ok(ExitCode::SUCCESS)
}
