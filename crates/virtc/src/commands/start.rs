use std::process::ExitCode;

use virtcontainers::{HookKind, fault};

use super::{Done, block_on, container, fetch, runtime};
use crate::cli::{GlobalArgs, IdArgs};

/// Lets the process of a container that was created begin.
pub(crate) fn start(global: &GlobalArgs, args: &IdArgs) -> Done {
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    block_on(async {
        let sandbox = fetch(&runtime, &id).await?;
        let hooks = runtime.container_hooks(sandbox.id(), &id)?;
        sandbox.start_container(&id).await?;
        let pid = sandbox.status_container(&id)?.pid;
        hooks.run(HookKind::Poststart, pid).await?;
        fault::point("start.hooks-run")
    })??;
    Ok(ExitCode::SUCCESS)
}
