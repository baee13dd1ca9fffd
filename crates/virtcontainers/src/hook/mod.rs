//! Hooks of OCI bundles: programs of the host that are run at points of a container's life.

mod container;
mod failure;
mod kind;
mod output;
mod process;

use std::time::Duration;

use oci_spec::runtime::{Hook, State};

use crate::error::{Error, Result};

pub use container::ContainerHooks;
pub use failure::HookFailure;
pub use kind::HookKind;

/// Runs hooks of one kind on the host, one after the other.
///
/// Each gets the arguments and the environment of its description and nothing of this process's,
/// the container's state as JSON on its standard input, and the bundle as its working directory.
/// It leads a process group of its own. The whole group is killed when the hook takes longer than
/// its `timeout`, or than `limit` where it has none, and when the future is dropped. What a hook
/// leaves in the background when it ends is left alone.
///
/// # Errors
///
/// [`Error::Hook`] for the first one that fails, after which no other is run. Where
/// [`HookKind::is_fatal`] says no there is none: the failure is logged, and the next one is run.
///
/// ```
/// use std::time::Duration;
///
/// use oci_spec::runtime::{ContainerState, HookBuilder, StateBuilder};
/// use virtcontainers::{HookKind, run_hooks};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let state = StateBuilder::default()
///     .version("1.1.0")
///     .id("web-1")
///     .status(ContainerState::Created)
///     .bundle("/")
///     .build()?;
/// let hook = HookBuilder::default()
///     .path("/bin/sh")
///     .args(["sh", "-c", "echo no >&2; exit 3"].map(str::to_owned))
///     .timeout(5)
///     .build()?;
/// let limit = Duration::from_secs(60);
/// let hooks = [hook];
/// assert!(run_hooks(HookKind::CreateRuntime, &hooks, &state, limit).await.is_err());
/// run_hooks(HookKind::Poststop, &hooks, &state, limit).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn run_hooks(
    kind: HookKind,
    hooks: &[Hook],
    state: &State,
    limit: Duration,
) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        let Err(failure) = process::run(hook, state, limit).await else {
            continue;
        };
        let error = Error::Hook {
            kind,
            index,
            path: hook.path().clone(),
            source: Box::new(failure),
        };
        if kind.is_fatal() {
            return Err(error);
        }
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(cause, "{error}");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
