//! A sandbox's place on disk, held by its keeper. Dropping it removes the place, unless it is to
//! be kept.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vc_hypervisor::qemu::COMMANDS_SOCKET;
use vc_store::{DeviceProcess, OperationGuard, SandboxDir, SandboxRecord, Verb, WhenBusy};
use vc_types::{
    BootId, ContainerId, EndReason, ExitStatus, ProcessIdentity, SandboxId, SandboxState,
};

use super::machine::Machine;
use super::{cgroups, network, states};
use crate::error::{Error, Result};
use crate::fault;
use crate::runtime::{Shared, blocking};

/// The VMM that the state was given last. It changes with the state, under its lock: a thread may still
/// write for somebody who has given it up.
type Written = Arc<Mutex<Option<ProcessIdentity>>>;

/// The directory, and the operation that makes the sandbox until it is ready.
pub(crate) struct Place {
    runtime: Arc<Shared>,
    directory: SandboxDir,
    operation: Option<OperationGuard>,
    /// Whether there was a sandbox before.
    restarted: bool,
    /// The VMM of its machine, once it is written down.
    vmm: Written,
    /// Whether it outlives this.
    kept: AtomicBool,
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
                restarted: false,
                vmm: Written::default(),
                kept: AtomicBool::new(false),
            })
        })
        .await
    }

    /// Takes the place of a stopped sandbox, to boot a machine again. It stays whatever happens.
    pub(crate) async fn reopen(
        runtime: &Arc<Shared>,
        directory: SandboxDir,
        describe: impl FnOnce(&mut SandboxRecord) -> Result<()> + Send,
    ) -> Result<Self> {
        let keeper = ProcessIdentity::current()?;
        let boot_id = BootId::current()?;
        let operation = directory.begin_operation(Verb::Start, WhenBusy::Refuse)?;
        let living = |record: &SandboxRecord| {
            let devices = record.processes.iter().map(|process| &process.identity);
            let own = record.keeper.iter().filter(|process| **process != keeper);
            let mut all = record.vmm_process.iter().chain(devices).chain(own);
            all.any(ProcessIdentity::is_alive)
        };
        if living(&directory.read()?) {
            return Err(Error::Running {
                sandbox: directory.id().clone(),
            });
        }
        // That of a machine that was taken while it waited has nobody else to remove it.
        remove_commands_socket(&directory)?;
        operation.update(|record| {
            // It may never have been written down that the one before ended.
            states::stop(record, EndReason::KeeperEnded)?;
            record.keeper = Some(keeper);
            record.boot_id = boot_id;
            record.end_reason = None;
            describe(record)
        })??;
        Ok(Self {
            directory,
            operation: Some(operation),
            runtime: Arc::clone(runtime),
            restarted: true,
            vmm: Written::default(),
            kept: AtomicBool::new(false),
        })
    }

    /// Describes what is made at another attempt.
    pub(crate) fn describe_again(
        &self,
        describe: impl FnOnce(&mut SandboxRecord) -> Result<()>,
    ) -> Result<()> {
        match &self.operation {
            Some(operation) => operation.update(describe)?,
            None => Ok(()),
        }
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
        let written = Arc::clone(&self.vmm);
        let (operation, stored) = blocking(move || {
            let keeper = ProcessIdentity::current()?;
            let before = vmm_of(&written).clone();
            let stored = operation.step_with("boot", |record| {
                still_kept(record, &keeper, &written)?;
                vmm_of(&written).clone_from(&vmm);
                record.vmm_process = vmm;
                record.processes = devices;
                Ok::<_, Error>(record.set_driver_state(Some(&state)))
            });
            let is_written = |record: SandboxRecord| record.vmm_process != before;
            if stored.is_err() && !operation.sandbox().read().is_ok_and(is_written) {
                *vmm_of(&written) = before;
            }
            Ok((operation, stored))
        })
        .await?;
        self.operation = Some(operation);
        stored??.map_err(|source| self.unstored(source))
    }

    /// The sandbox is ready: its operation ends.
    pub(crate) async fn ready(&mut self, machine: &Machine) -> Result<()> {
        let Some(operation) = self.operation.take() else {
            return Ok(());
        };
        // A new one is ready; one that was stopped runs again.
        let restarted = self.restarted;
        // With the memory that it got meanwhile.
        let state = machine.vm().state();
        let vmm = Arc::clone(&self.vmm);
        let stored = blocking(move || {
            let keeper = ProcessIdentity::current()?;
            operation.commit(|record| {
                still_kept(record, &keeper, &vmm)?;
                record.state = match restarted {
                    true => record.state.transition(SandboxState::Running)?,
                    false => SandboxState::Ready,
                };
                Ok(record.set_driver_state(Some(&state)))
            })?
        });
        stored.await?.map_err(|source| self.unstored(source))
    }

    fn unstored(&self, source: serde_json::Error) -> Error {
        Error::System {
            attempt: format!("store the machine of sandbox {}", self.id()),
            source: source.into(),
        }
    }

    /// Writes down how the sandbox ended, and one of its containers before it, and leaves its place
    /// to whoever deletes it.
    ///
    /// Somebody else may have ended the machine, and booted another one since; nothing is written
    /// then.
    pub(crate) async fn stopped(
        &self,
        reason: EndReason,
        ended: Option<(ContainerId, ExitStatus)>,
    ) -> Result<()> {
        let (directory, vmm) = (self.directory.clone(), Arc::clone(&self.vmm));
        blocking(move || {
            let keeper = ProcessIdentity::current()?;
            directory.try_update(|record| {
                let nobody = record.keeper.is_none() && record.vmm_process.is_none();
                if !nobody && !is_kept(record, &keeper, &vmm) {
                    return Ok(());
                }
                if let Some((container, exit)) = ended {
                    states::container_ended(record, &container, exit, None)?;
                }
                states::stop(record, reason)
            })
        })
        .await?;
        self.kept.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Writes down that a machine which was booted again is gone. By now somebody else may have
    /// booted another one; that one is left alone.
    fn stopped_again(&self) -> Result<()> {
        let keeper = ProcessIdentity::current()?;
        self.directory
            .try_update(|record| match is_kept(record, &keeper, &self.vmm) {
                true => states::stop(record, EndReason::Requested),
                false => Ok(()),
            })
    }

    /// Removes the place, and says so when something stays.
    pub(crate) async fn remove(self) -> Result<()> {
        self.kept.store(true, Ordering::SeqCst);
        let (runtime, directory) = (Arc::clone(&self.runtime), self.directory.clone());
        blocking(move || {
            let left = remove_cgroups(&directory);
            fault::point("delete.cgroups-removed")?;
            if !left.is_empty() {
                // The state stays, so that whoever tries again knows what to remove.
                return Err(Error::Left {
                    sandbox: directory.id().clone(),
                    left: left.join(", "),
                });
            }
            Ok(runtime.store.remove_dir(&directory).map(drop)?)
        })
        .await
    }
}

impl Place {
    /// Gives up a place whose directory somebody removed, and whose processes have ended: what its name
    /// leads to goes. Nobody else may have the name by now.
    pub(crate) async fn give_up_lost(self) -> Result<()> {
        self.kept.store(true, Ordering::SeqCst);
        let (runtime, directory) = (Arc::clone(&self.runtime), self.directory.clone());
        blocking(move || cgroups::remove_by_name(runtime.store.root(), &directory)).await
    }
}

/// Removes the command socket of a machine that is gone, where it is there: the next one makes its own.
pub(super) fn remove_commands_socket(directory: &SandboxDir) -> Result<()> {
    match std::fs::remove_file(directory.path().join(COMMANDS_SOCKET)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| Error::System {
            attempt: format!(
                "remove the command socket of an earlier machine of sandbox {}",
                directory.id()
            ),
            source,
        }),
    }
}

/// Whether `keeper` still keeps the sandbox, and with this machine.
fn is_kept(record: &SandboxRecord, keeper: &ProcessIdentity, vmm: &Written) -> bool {
    record.keeper.as_ref() == Some(keeper) && record.vmm_process == *vmm_of(vmm)
}

/// Refuses to write what somebody has given up whose machine is gone: that is written down already.
fn still_kept(record: &SandboxRecord, keeper: &ProcessIdentity, vmm: &Written) -> Result<()> {
    match is_kept(record, keeper, vmm) {
        true => Ok(()),
        false => Err(Error::NotRunning {
            sandbox: record.id().clone(),
        }),
    }
}

fn vmm_of(written: &Written) -> MutexGuard<'_, Option<ProcessIdentity>> {
    written.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes away what a sandbox whose processes have ended has of the host, and says what stays.
fn take_away(directory: &SandboxDir) -> Vec<String> {
    // The cgroups first: with them the last process goes that has something of the network open.
    let mut left = remove_cgroups(directory);
    if let Ok(record) = directory.read() {
        left.extend(network::undo(&record));
    }
    left
}

/// Removes the cgroups of a sandbox whose processes have ended, and says what stays.
fn remove_cgroups(directory: &SandboxDir) -> Vec<String> {
    // One that was removed has none, and one that cannot be read names none.
    let record = directory.read().ok();
    record.as_ref().map_or_else(Vec::new, cgroups::remove_all)
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept.load(Ordering::SeqCst) {
            return;
        }
        if self.restarted {
            // What there was before stays, stopped as it was.
            if let Err(error) = self.stopped_again() {
                tracing::warn!(sandbox = %self.id(), %error, "its end is not written down");
            }
            return;
        }
        let stopped = |record: SandboxRecord| record.keep;
        if self.directory.read().is_ok_and(stopped) {
            return;
        }
        let left = take_away(&self.directory);
        if !left.is_empty() {
            let left = left.join(", ");
            tracing::warn!(sandbox = %self.id(), left, "virtc gc removes it");
            return;
        }
        // The operation goes after it: until the place is gone, it says what happens.
        if let Err(error) = self.runtime.store.remove_dir(&self.directory) {
            tracing::warn!(sandbox = %self.id(), %error, "its directory stays; virtc gc removes it");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vc_store::{Document, Store, StoreLimits};

    use super::*;

    #[test]
    fn what_was_given_up_is_written_by_nobody() {
        let keeper = ProcessIdentity::current().unwrap();
        let mut record = SandboxRecord::new("web".parse().unwrap()).unwrap();
        record.keeper = Some(keeper.clone());
        record.state = SandboxState::Running;
        let vmm = Written::default();
        still_kept(&record, &keeper, &vmm).unwrap();

        *vmm_of(&vmm) = Some(keeper.clone());
        assert!(still_kept(&record, &keeper, &vmm).is_err(), "another VM");
        record.vmm_process = Some(keeper.clone());
        still_kept(&record, &keeper, &vmm).unwrap();

        states::stop(&mut record, EndReason::Requested).unwrap();
        let late = still_kept(&record, &keeper, &vmm).unwrap_err();
        assert!(matches!(late, Error::NotRunning { .. }), "{late}");
    }

    #[test]
    fn what_stays_of_a_network_is_said() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path().join("state"), StoreLimits::default());
        let record = SandboxRecord::new("web".parse().unwrap()).unwrap();
        let creation = store.create(record, Verb::Create).unwrap();
        let directory = creation.sandbox();
        assert_eq!(take_away(directory), Vec::<String>::new());
        let undone = json!({"namespace": "/nowhere", "undos": []});
        for (network, stays) in [(undone, false), (json!({}), true)] {
            let network = Document::of(&network).unwrap();
            let noted = directory.update(|record| record.network = Some(network));
            noted.unwrap();
            let left = take_away(directory).join(", ");
            assert_eq!(left.contains("its network"), stays, "{left}");
        }
    }
}
