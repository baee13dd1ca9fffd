use std::process::ExitCode;

use super::{Done, block_on, container, runtime};
use crate::cli::{GlobalArgs, IdArgs};

pub(crate) fn pause(global: &GlobalArgs, args: &IdArgs) -> Done {
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    block_on(async {
        let sandbox = runtime.fetch_sandbox(&runtime.find_container(&id)?).await?;
        sandbox.pause_container(&id).await
    })??;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn resume(global: &GlobalArgs, args: &IdArgs) -> Done {
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    block_on(async {
        let sandbox = runtime.fetch_sandbox(&runtime.find_container(&id)?).await?;
        sandbox.resume_container(&id).await
    })??;
    Ok(ExitCode::SUCCESS)
}
