use std::process::ExitCode;

use super::{Done, block_on, container, fetch, runtime};
use crate::cli::{GlobalArgs, IdArgs};

/// Lets the process of a container that was created begin.
pub(crate) fn start(global: &GlobalArgs, args: &IdArgs) -> Done {
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    block_on(async { fetch(&runtime, &id).await?.start_container(&id).await })??;
    Ok(ExitCode::SUCCESS)
}
