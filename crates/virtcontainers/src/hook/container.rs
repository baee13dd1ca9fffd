use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::{ContainerState as OciState, Hooks, StateBuilder};
use vc_types::{ContainerId, SandboxId};

use super::{HookKind, run_hooks};
use crate::container::saved;
use crate::error::{Error, Result};
use crate::runtime::Runtime;

/// The version of the specification that states of hooks follow.
const OCI_VERSION: &str = "1.0.2";

/// The hooks of one container, which outlive it: its last ones run when it is gone.
#[derive(Clone, Debug)]
pub struct ContainerHooks {
    container: ContainerId,
    hooks: Option<Hooks>,
    bundle: PathBuf,
    annotations: std::collections::HashMap<String, String>,
    limit: Duration,
}

impl Runtime {
    /// The hooks of a container that run on the host.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when there is no such sandbox, [`Error::System`] when what the container
    /// was asked to be cannot be read.
    pub fn container_hooks(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
    ) -> Result<ContainerHooks> {
        let config = saved::load(&self.sandbox_directory(sandbox)?, container)?;
        Ok(ContainerHooks {
            container: container.clone(),
            hooks: config.hooks,
            bundle: config.bundle.unwrap_or_else(|| "/".into()),
            annotations: config.spec.annotations().clone().unwrap_or_default(),
            limit: self.config().limits.hook_ms.duration(),
        })
    }
}

impl ContainerHooks {
    /// Runs those of one kind, see [`run_hooks`]. `pid` is the process on the host that stands for
    /// the container.
    ///
    /// # Errors
    ///
    /// [`Error::Hook`] for one that fails, where that is fatal.
    pub async fn run(&self, kind: HookKind, pid: Option<i32>) -> Result<()> {
        let hooks = self.hooks.as_ref().map(|hooks| kind.select(hooks));
        let Some(hooks @ [_, ..]) = hooks else {
            return Ok(());
        };
        let status = match kind {
            HookKind::Prestart | HookKind::CreateRuntime | HookKind::CreateContainer => {
                OciState::Creating
            }
            HookKind::StartContainer => OciState::Created,
            HookKind::Poststart => OciState::Running,
            HookKind::Poststop => OciState::Stopped,
        };
        let mut state = StateBuilder::default()
            .version(OCI_VERSION)
            .id(self.container.to_string())
            .status(status)
            .bundle(self.bundle.clone())
            .annotations(self.annotations.clone());
        if let Some(pid) = pid {
            state = state.pid(pid);
        }
        let state = state.build().map_err(|source| Error::Specification {
            container: self.container.clone(),
            source,
        })?;
        run_hooks(kind, hooks, &state, self.limit).await
    }

    /// Runs those of a container that is being made.
    ///
    /// # Errors
    ///
    /// [`Error::Hook`] for the first one that fails.
    pub async fn run_creating(&self, pid: i32) -> Result<()> {
        for kind in [
            HookKind::Prestart,
            HookKind::CreateRuntime,
            HookKind::CreateContainer,
        ] {
            self.run(kind, Some(pid)).await?;
        }
        Ok(())
    }
}
