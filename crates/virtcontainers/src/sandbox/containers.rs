//! Containers that come and go while their sandbox runs.
//!
//! Making and removing one is an operation on its sandbox, so there is one at a time. A container
//! is in the state before anything of it is made, marked as being made, with all names that it
//! gets: whoever begins the next operation takes out what an interrupted one has left.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;
use vc_storage::RunningShare;
use vc_store::{ContainerRecord, OperationGuard, SandboxRecord, Verb, View, WhenBusy};
use vc_types::{
    ContainerId, ContainerState, EndReason, ExitStatus, ProcessIdentity, SandboxId, SandboxState,
    Signal,
};

use super::cgroups;
use super::delete::has_ended_by;
use super::guest::end_of;
use super::handle::SandboxHandle;
use super::machine::kill;
use super::making::make;
use super::process::Process;
use super::surroundings::USER_SHARE;
use crate::container::placement::user_share_path;
use crate::container::{ContainerConfig, saved};
use crate::error::{Error, Result};
use crate::fault;
use crate::runtime::{Shared, blocking};

/// How long a stand-in may take to end once its container is removed in the guest.
const STAND_IN_END_LIMIT: Duration = Duration::from_secs(2);

impl SandboxHandle {
    /// Makes a container in the running sandbox; its process waits for its start.
    ///
    /// When this is dropped before it is done, the container is removed again.
    ///
    /// # Errors
    ///
    /// [`Error::ContainerExists`] before anything is touched; [`Error::Unsupported`] for a root
    /// that the sandbox has no share for; [`Error::Storage`], [`Error::Agent`], [`Error::Ended`].
    /// Nothing is left of a container that was not made.
    pub async fn create_container(&self, config: ContainerConfig) -> Result<Process> {
        let (tell, told) = oneshot::channel();
        let sandbox = self.clone();
        let id = config.id.clone();
        tokio::spawn(async move {
            let made = make(&sandbox, config).await;
            // Whoever asked has given it up.
            if let Err(Ok(process)) = tell.send(made) {
                let id = process.container.clone();
                drop(process);
                if let Err(error) = sandbox.delete_container(&id, true).await {
                    tracing::warn!(container = %id, %error, "given up, and not removed");
                }
            }
        });
        told.await.map_err(|error| Error::System {
            attempt: format!("make container {id}"),
            source: std::io::Error::other(error),
        })?
    }

    /// Removes a container that does not run, in the guest and on the host; with `force`, one that
    /// runs is killed first. The sandbox goes on, without containers too. Where its machine ends
    /// meanwhile, what is known of the container goes.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], [`Error::ContainerRunning`] when it runs and `force` is not given,
    /// [`Error::Agent`] and [`Error::Storage`] when something of it stays: it is still there then,
    /// to be removed again.
    pub async fn delete_container(&self, container: &ContainerId, force: bool) -> Result<()> {
        let deleted = self.delete_in_guest(container, force).await;
        forgotten_where_ended(&self.0.runtime, self.id(), container, deleted).await
    }

    async fn delete_in_guest(&self, container: &ContainerId, force: bool) -> Result<()> {
        let before = self.0.directory.read()?;
        let half_made = before.containers.get(container).is_some_and(|c| c.creating);
        let operation = self.begin(Verb::DeleteContainer).await?;
        let record = self.0.directory.read()?;
        let Some(entry) = record.containers.get(container) else {
            if half_made {
                // Whoever made it was killed, and it was taken out just now; or gave it up.
                return Ok(());
            }
            return Err(Error::NoContainer {
                sandbox: self.id().clone(),
                container: container.clone(),
            });
        };
        refuse_running(container, entry.state, force)?;
        fault::point("delete-container.begun")?;
        self.take_out(&operation, &record, container).await?;
        let id = container.clone();
        operation.update(|record| {
            record.containers.remove(&id);
        })?;
        self.give_back(&operation).await;
        blocking(move || {
            operation.commit(|_| {})?;
            fault::point("delete-container.written")
        })
        .await
    }

    /// Ends the processes of a container: politely, and by force after `limits.stop_container_ms`;
    /// at once with `force`. One that has ended is no error.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], [`Error::Agent`], [`Error::Ended`], and [`Error::NotEnded`] when it
    /// outlives being killed for `limits.kill_container_ms`.
    pub async fn stop_container(&self, container: &ContainerId, force: bool) -> Result<ExitStatus> {
        let status = self.status_container(container)?;
        if status.state == ContainerState::Stopped {
            let unknown = ExitStatus::Lost {
                reason: EndReason::Requested,
            };
            return Ok(status.exit.unwrap_or(unknown));
        }
        let limits = &self.0.runtime.config.limits;
        let waited = self.wait_process(container);
        tokio::pin!(waited);
        if !force {
            // It may have ended just now; the wait says so.
            let asked = self.signal_process(container, Signal::TERM).await;
            let polite = limits.stop_container_ms.duration();
            if asked.is_ok()
                && let Ok(exit) = timeout(polite, &mut waited).await
            {
                return Ok(exit?.status);
            }
        }
        let killed = self.0.guest.signal_all(container, Signal::KILL).await;
        let limit = limits.kill_container_ms.duration();
        match timeout(limit, waited).await {
            Ok(exit) => Ok(exit?.status),
            Err(_) => {
                killed?;
                Err(Error::NotEnded {
                    container: container.clone(),
                    limit,
                })
            }
        }
    }

    /// Starts the containers that wait for their start, in the order in which they were made.
    ///
    /// # Errors
    ///
    /// Those of [`SandboxHandle::start_container`]; those before the one that failed run.
    pub async fn start(&self) -> Result<()> {
        let record = self.0.directory.read()?;
        let mut waiting: Vec<_> = record
            .containers
            .iter()
            .filter(|(_, entry)| entry.state == ContainerState::Ready && !entry.creating)
            .collect();
        waiting.sort_by_key(|(_, entry)| entry.number);
        for (container, _) in waiting {
            self.start_container(container).await?;
        }
        Ok(())
    }

    /// Asks the guest to write back what reaches the host, within the limit of a stop.
    pub(super) async fn write_back(&self) {
        let limit = self.0.runtime.config.limits.stop_vmm_ms.duration();
        match timeout(limit, self.0.guest.agent.destroy_sandbox()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the guest did not write back"),
            Err(_) => tracing::warn!("the guest did not write back in time"),
        }
    }

    /// Begins an operation, waits for the one that is under way, and takes out what an interrupted
    /// one has left.
    pub(super) async fn begin(&self, verb: Verb) -> Result<OperationGuard> {
        let limit = self.operation_limit();
        let directory = self.0.directory.clone();
        let operation =
            blocking(move || Ok(directory.begin_operation(verb, WhenBusy::Wait(limit))?)).await?;
        let record = self.0.directory.read()?;
        let left = record.containers.iter().filter(|(_, entry)| entry.creating);
        for (container, _) in left {
            // One that cannot be taken out keeps nobody else's from being made or removed.
            if let Err(error) = self.take_out(&operation, &record, container).await {
                tracing::warn!(%container, %error, "what is left of its making stays");
                continue;
            }
            operation.update(|record| {
                record.containers.remove(container);
            })?;
        }
        if let Err(error) = self.take_out_devices(&operation).await {
            tracing::warn!(%error, "what is left of an interrupted device stays");
        }
        Ok(operation)
    }

    fn operation_limit(&self) -> Duration {
        self.0.runtime.config.limits.operation_ms.duration()
    }

    /// Removes everything of a container but its place in the state. All of it may be done again.
    pub(super) async fn take_out(
        &self,
        operation: &OperationGuard,
        record: &SandboxRecord,
        container: &ContainerId,
    ) -> Result<()> {
        self.0.guest.remove(container).await?;
        fault::point("delete-container.guest-removed")?;
        if let Some(entry) = record.containers.get(container) {
            self.unplug_disk(operation, record, entry.number).await?;
            let names = entry.shared.clone();
            if !names.is_empty() {
                let paths = names.iter().map(|name| user_share_path(name)).collect();
                self.change_share(record, move |share| share.remove(&names))
                    .await?;
                // What the guest remembers keeps files open, and costs nothing else.
                if let Err(error) = self.0.guest.forget_paths(paths).await {
                    tracing::warn!(%container, %error, "the guest does not forget its files");
                }
            }
            fault::point("delete-container.share-changed")?;
            let entry = entry.clone();
            blocking(move || {
                end_stand_in(&entry)?;
                fault::point("delete-container.stand-in-ended")?;
                cgroups::remove_container(&entry)
            })
            .await?;
        }
        fault::point("delete-container.cgroup-removed")?;
        saved::remove(self.0.directory.path(), container)?;
        fault::point("delete-container.files-removed")
    }

    pub(super) async fn change_share(
        &self,
        record: &SandboxRecord,
        change: impl FnOnce(&RunningShare<'_>) -> vc_storage::Result<()> + Send + 'static,
    ) -> Result<()> {
        let mut processes = record.processes.iter();
        let share = processes.find(|process| process.name == USER_SHARE);
        let share = share.map(|process| process.identity.clone());
        let process = share.ok_or_else(|| Error::Unsupported {
            what: format!("a directory of the host in sandbox {}", self.id()),
        })?;
        let program = self.0.runtime.program.clone();
        blocking(move || {
            Ok(change(&RunningShare {
                program: &program,
                process: &process,
            })?)
        })
        .await
    }
}

/// Waits until the process that stood for a removed container has ended, as it does by itself, and
/// kills it when it has not.
fn end_stand_in(entry: &ContainerRecord) -> Result<()> {
    let own = ProcessIdentity::current()?;
    let Some(stand_in) = entry.stand_in.as_ref().filter(|process| **process != own) else {
        return Ok(());
    };
    if has_ended_by(stand_in, Instant::now() + STAND_IN_END_LIMIT) {
        return Ok(());
    }
    kill(stand_in).map_err(|source| Error::System {
        attempt: format!("kill process {stand_in}, which stood for a container"),
        source,
    })
}

/// Says whether a container in this state may be removed.
fn refuse_running(container: &ContainerId, state: ContainerState, force: bool) -> Result<()> {
    match state {
        ContainerState::Running | ContainerState::Paused if !force => {
            Err(Error::ContainerRunning {
                container: container.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// How a container was `deleted`, or forgotten: where that has failed because the machine has ended
/// meanwhile, or is about to, nothing in it is left to remove.
pub(crate) async fn forgotten_where_ended(
    runtime: &Shared,
    sandbox: &SandboxId,
    container: &ContainerId,
    deleted: Result<()>,
) -> Result<()> {
    match deleted {
        Err(error) if error.is_of_a_machine() => {
            match forget_ended(runtime, sandbox, container).await {
                Ok(true) => Ok(()),
                Err(gone) if gone.is_not_found() => Ok(()),
                _ => Err(error),
            }
        }
        deleted => deleted,
    }
}

/// As [`forget`], where the machine is about to end: it is waited for.
async fn forget_ended(
    runtime: &Shared,
    sandbox: &SandboxId,
    container: &ContainerId,
) -> Result<bool> {
    match end_of(&runtime.store.get(sandbox)?).await {
        Some(_) => forget(runtime, sandbox, container).await,
        None => Ok(false),
    }
}

/// Removes what is known of a container whose sandbox has no machine. Says whether that is so: one
/// that was just coming up has a machine once it has been waited for.
pub(crate) async fn forget(
    runtime: &Shared,
    sandbox: &SandboxId,
    container: &ContainerId,
) -> Result<bool> {
    let directory = runtime.store.get(sandbox)?;
    let limit = runtime.config.limits.operation_ms.duration();
    let (sandbox, container) = (sandbox.clone(), container.clone());
    blocking(move || {
        let operation = directory.begin_operation(Verb::DeleteContainer, WhenBusy::Wait(limit))?;
        let record = directory.read()?;
        if View::of(&record).state != SandboxState::Stopped {
            return Ok(false);
        }
        let Some(entry) = record.containers.get(&container) else {
            return Err(Error::NoContainer { sandbox, container });
        };
        end_stand_in(entry)?;
        cgroups::remove_container(entry)?;
        saved::remove(directory.path(), &container)?;
        operation.commit(|record| {
            record.containers.remove(&container);
        })?;
        Ok(true)
    })
    .await
}
