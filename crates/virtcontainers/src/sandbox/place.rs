//! A sandbox's place on disk, held by its keeper. Dropping it removes the place, unless it is to
//! be kept.

use std::path::Path;
use std::sync::Arc;

use vc_store::{DeviceProcess, OperationGuard, SandboxDir, SandboxRecord, UnixMillis, Verb};
use vc_types::{
    ContainerId, ContainerState, EndReason, ExitStatus, ProcessIdentity, SandboxId, SandboxState,
};

use super::machine::Machine;
use crate::error::{Error, Result};
use crate::runtime::{Shared, blocking};

/// The directory, and the operation that makes the sandbox until it is ready.
pub(crate) struct Place {
    runtime: Arc<Shared>,
    directory: SandboxDir,
    operation: Option<OperationGuard>,
    kept: bool,
}

impl Place {
    /// Takes the id: from here on, nobody else gets it.
    pub(crate) async fn reserve(runtime: &Arc<Shared>, mut record: SandboxRecord) -> Result<Self> {
        record.keeper = Some(ProcessIdentity::current()?);
        let runtime = Arc::clone(runtime);
        // Whole in one piece of work: when nobody waits for it any more, it undoes itself.
        blocking(move || {
            let operation = runtime.store.create(record, Verb::Create)?;
            Ok(Self {
                directory: operation.sandbox().clone(),
                operation: Some(operation),
                runtime,
                kept: false,
            })
        })
        .await
    }

    pub(crate) fn id(&self) -> &SandboxId {
        self.directory.id()
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn directory(&self) -> &SandboxDir {
        &self.directory
    }

    /// Notes the machine's processes, so that whoever comes after a kill can end them.
    pub(crate) async fn describe(&mut self, machine: &Machine) -> Result<()> {
        let Some(operation) = self.operation.take() else {
            return Ok(());
        };
        let vmm = machine.vm().processes().into_iter().next();
        let state = machine.vm().state();
        let device = |(name, identity): &(&'static str, ProcessIdentity)| DeviceProcess {
            name: (*name).to_owned(),
            identity: identity.clone(),
        };
        let devices = machine.devices().iter().map(device).collect();
        let (operation, stored) = blocking(move || {
            let stored = operation.step_with("boot", |record| {
                record.vmm_process = vmm;
                record.processes = devices;
                record.set_driver_state(Some(&state))
            });
            Ok((operation, stored))
        })
        .await?;
        self.operation = Some(operation);
        stored?.map_err(|source| Error::System {
            attempt: format!("store the machine of sandbox {}", self.id()),
            source: source.into(),
        })
    }

    /// The sandbox is ready: its operation ends.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let Some(operation) = self.operation.take() else {
            return Ok(());
        };
        blocking(move || Ok(operation.commit(|record| record.state = SandboxState::Ready)?)).await
    }

    /// Writes down how the sandbox ended, and leaves its place to whoever deletes it.
    pub(crate) async fn keep(
        mut self,
        reason: EndReason,
        container: &ContainerId,
        exit: ExitStatus,
    ) -> Result<()> {
        let (directory, container) = (self.directory.clone(), container.clone());
        blocking(move || {
            directory.try_update(|record| {
                record.keep = true;
                record.state = record.state.transition(SandboxState::Stopped)?;
                record.keeper = None;
                record.vmm_process = None;
                record.processes.clear();
                record.end_reason = Some(reason);
                if let Some(entry) = record.containers.get_mut(&container) {
                    entry.state = entry.state.transition(ContainerState::Stopped)?;
                    entry.exit = Some(exit);
                    entry.ended = Some(UnixMillis::now());
                }
                Ok(())
            })
        })
        .await?;
        self.kept = true;
        Ok(())
    }

    /// Removes the place, and says so when something stays.
    pub(crate) async fn remove(mut self) -> Result<()> {
        self.kept = true;
        let (runtime, directory) = (Arc::clone(&self.runtime), self.directory.clone());
        blocking(move || Ok(runtime.store.remove_dir(&directory)?)).await?;
        Ok(())
    }
}

/// Writes down that a container's process was started.
pub(super) async fn started(directory: &SandboxDir, container: &ContainerId) -> Result<()> {
    let (directory, container) = (directory.clone(), container.clone());
    blocking(move || {
        directory.try_update(|record| {
            if record.state != SandboxState::Running {
                record.state = record.state.transition(SandboxState::Running)?;
            }
            if let Some(entry) = record.containers.get_mut(&container) {
                entry.state = entry.state.transition(ContainerState::Running)?;
                entry.started = Some(UnixMillis::now());
            }
            Ok(())
        })
    })
    .await
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // The operation goes after it: until the place is gone, it says what happens.
        if let Err(error) = self.runtime.store.remove_dir(&self.directory) {
            tracing::warn!(sandbox = %self.id(), %error, "its directory stays; virtc gc removes it");
        }
    }
}
