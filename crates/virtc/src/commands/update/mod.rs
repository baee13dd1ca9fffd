//! Changes of a running container's limits.

mod refused;
mod resources;
mod size;

use std::process::ExitCode;

use self::resources::resources;
use super::{Done, block_on, container, fetch, runtime};
use crate::cli::{GlobalArgs, UpdateArgs};

/// Changes what a container may use of its guest.
pub(crate) fn update(global: &GlobalArgs, args: &UpdateArgs) -> Done {
    let resources = resources(args)?;
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    block_on(async {
        fetch(&runtime, &id)
            .await?
            .update_container(&id, &resources)
            .await
    })??;
    Ok(ExitCode::SUCCESS)
}
