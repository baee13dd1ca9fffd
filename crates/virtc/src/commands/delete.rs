use std::process::ExitCode;

use vc_types::{ContainerState, SandboxId};
use virtcontainers::{Error, HookKind, Runtime, View, fault};

use super::{Done, block_on, container, runtime};
use crate::cli::{DeleteArgs, GlobalArgs};
use crate::error::{FAILED, Failure};

pub(crate) fn delete(global: &GlobalArgs, args: &DeleteArgs) -> Done {
    let runtime = runtime(global)?;
    let mut code = ExitCode::SUCCESS;
    for name in &args.names {
        if let Err(failure) = delete_one(&runtime, name, args.force) {
            // The others are deleted all the same.
            code = failure.report();
        }
    }
    Ok(code)
}

/// Deletes one container whatever it does; one that is not there is deleted.
///
/// # Errors
///
/// What cannot be removed.
pub(crate) fn force(global: &GlobalArgs, name: &str) -> Result<(), Failure> {
    delete_one(&runtime(global)?, name, true)
}

fn delete_one(runtime: &Runtime, name: &str, force: bool) -> Result<(), Failure> {
    let id = container(name)?;
    let sandbox = match runtime.find_container(&id) {
        Ok(sandbox) => sandbox,
        // A sandbox whose state cannot be read has its name alone.
        Err(Error::UnknownContainer { .. }) => {
            let sandbox = SandboxId::new(name).map_err(Failure::usage)?;
            return deleted_or_gone(runtime.delete_sandbox(&sandbox, force), force).map(drop);
        }
        Err(error) => return Err(error.into()),
    };
    // They run when it is gone. Without a description there is nothing to run.
    let hooks = runtime.container_hooks(&sandbox, &id).ok();
    let removed = match sandbox.as_str() == name {
        // It is the sandbox's own: what joined it goes too. Who removed it runs its hooks: an engine and
        // a user may do it at the same time.
        true => {
            // One that does not run has nothing to lose.
            let ended_first = force || does_not_run(runtime, &sandbox)?;
            let deleted = runtime.delete_sandbox(&sandbox, ended_first);
            deleted_or_gone(deleted, force)?.unwrap_or(false)
        }
        // Where its sandbox went with it, nobody ran them.
        false => {
            let deleted = block_on(runtime.delete_container(&sandbox, &id, force))?;
            deleted_or_gone(deleted, force)?;
            true
        }
    };
    if let Some(hooks) = hooks.filter(|_| removed) {
        block_on(hooks.run(HookKind::Poststop, None))??;
    }
    Ok(fault::point("delete.hooks-run")?)
}

/// What came of it, or nothing where nothing was there. That is what force asks for, as other runtimes
/// have it: somebody else may have deleted it meanwhile, or its sandbox with all that joined it.
fn deleted_or_gone<T>(
    deleted: virtcontainers::Result<T>,
    force: bool,
) -> Result<Option<T>, Failure> {
    match deleted {
        Err(error) if force && error.is_not_found() => Ok(None),
        Err(error) => Err(Failure::from_error(FAILED, &error)),
        Ok(deleted) => Ok(Some(deleted)),
    }
}

fn does_not_run(runtime: &Runtime, sandbox: &SandboxId) -> Result<bool, Failure> {
    let record = runtime.status_sandbox(sandbox)?;
    let view = View::of(&record);
    // The machine of one that ended is about to end.
    let idle = [ContainerState::Ready, ContainerState::Stopped];
    let mut all = view.containers.values();
    let waits = all.all(|seen| idle.contains(&seen.state));
    Ok(waits && view.activity.is_none() && !record.throwaway)
}
