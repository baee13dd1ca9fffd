//! What is done with a running sandbox and its containers, by its keeper and by others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::runtime::Process as ProcessSpec;
use vc_agent_client::{AgentClient, Code, Transport};
use vc_store::{ContainerRecord, SandboxDir, View};
use vc_types::{
    ContainerId, ContainerState, EndReason, ExecId, SandboxId, SandboxState, Signal, Timeline,
};

use super::guest::{EndWatch, Guest, end_of};
use super::lease::{self, Lease};
use super::process::{GuestProcess, Process, ProcessExit};
use super::{states, vsock};
use crate::container::ContainerStatus;
use crate::error::{Error, Result};
use crate::fault;
use crate::runtime::{Shared, blocking};
use crate::stats::ContainerStats;
use crate::stream::Streams;

/// A running sandbox, to act on and to leave.
///
/// Copies are the same sandbox. Dropping them changes nothing: the sandbox lives as long as its
/// keeper.
#[derive(Clone)]
pub struct SandboxHandle(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) runtime: Arc<Shared>,
    pub(super) directory: SandboxDir,
    pub(super) guest: Guest,
    /// Attached, and not taken yet.
    streams: Mutex<BTreeMap<ContainerId, Streams>>,
    /// Numbers the processes that this handle adds.
    added: AtomicU32,
}

/// Fetches a running sandbox. Nothing on disk is changed.
pub(crate) async fn fetch(runtime: &Arc<Shared>, id: &SandboxId) -> Result<SandboxHandle> {
    let directory = runtime.store.get(id)?;
    let state = View::of(&directory.read()?).state;
    if state == SandboxState::Stopped {
        return Err(Error::NotRunning {
            sandbox: id.clone(),
        });
    }
    let limits = &runtime.config.limits;
    let address = vsock::address(directory.path());
    let transport = Transport::new(address, limits.agent_connect_ms.duration());
    let connected = AgentClient::connect(&transport, Guest::call_limits(limits)).await;
    if let Err(error) = &connected
        && error.is_broken()
        && end_of(&directory).await.is_some()
    {
        return Err(Error::NotRunning {
            sandbox: id.clone(),
        });
    }
    let agent = connected?;
    let guest = Guest {
        sandbox: id.clone(),
        agent,
        transport,
        attach_limit: limits.agent_create_ms.duration(),
        end: EndWatch::Fetched(directory.clone()),
    };
    Ok(SandboxHandle::new(
        runtime,
        directory,
        guest,
        BTreeMap::new(),
    ))
}

impl SandboxHandle {
    pub(super) fn new(
        runtime: &Arc<Shared>,
        directory: SandboxDir,
        guest: Guest,
        streams: BTreeMap<ContainerId, Streams>,
    ) -> Self {
        Self(Arc::new(Inner {
            runtime: Arc::clone(runtime),
            directory,
            guest,
            streams: Mutex::new(streams),
            added: AtomicU32::new(0),
        }))
    }

    /// Its name.
    pub fn id(&self) -> &SandboxId {
        self.0.directory.id()
    }

    /// Where it and its containers stand.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when it was removed or its state cannot be read.
    pub fn status(&self) -> Result<View> {
        Ok(View::of(&self.0.directory.read()?))
    }

    /// Where a container stands.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], and those of [`SandboxHandle::status`].
    pub fn status_container(&self, container: &ContainerId) -> Result<ContainerStatus> {
        ContainerStatus::of(&self.0.directory.read()?, container)
    }

    /// What whoever made the sandbox noted about it, and was noted since.
    ///
    /// # Errors
    ///
    /// Those of [`SandboxHandle::status`].
    pub fn annotations(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.0.directory.read()?.annotations)
    }

    /// Notes more about the sandbox; a key that is there gets the new value. They are kept with
    /// its state.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn set_annotations(&self, annotations: BTreeMap<String, String>) -> Result<()> {
        let directory = self.0.directory.clone();
        blocking(move || Ok(directory.update(|record| record.annotations.extend(annotations))?))
            .await
    }

    /// Starts the process of a container that was made and waits. Why its program cannot be
    /// executed, where it cannot: that is no error but its exit, which
    /// [`SandboxHandle::wait_process`] tells too.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], [`Error::Types`] when it was started before, [`Error::Agent`],
    /// [`Error::Ended`] when the machine ends meanwhile, and [`Error::Store`] when it cannot be
    /// written down that it runs: it is killed then.
    pub async fn start_container(&self, container: &ContainerId) -> Result<Option<String>> {
        self.existing(container)?.start()?;
        fault::point("start.begun")?;
        let not_executed = match self.0.guest.start(container).await {
            Ok(not_executed) => not_executed,
            Err(error) => {
                self.started_after_all(container, error).await?;
                None
            }
        };
        fault::point("start.process-started")?;
        let noted = states::started(&self.0.directory, container).await;
        if noted.is_err()
            && let Err(error) = self.0.guest.signal_all(container, Signal::KILL).await
        {
            tracing::warn!(%container, %error, "it runs, and the state does not say so");
        }
        noted?;
        fault::point("start.written")?;
        Ok(not_executed)
    }

    /// Adds a process to a running container, with its streams attached.
    ///
    /// That its program cannot be executed is told by [`Process::wait`], as its exit. When this is
    /// dropped before it is done, or fails, what the guest has made of it by then is killed.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], [`Error::ContainerEnded`], [`Error::Agent`] when the container was not
    /// started or is paused, and [`Error::Ended`] when the machine ends meanwhile.
    pub async fn enter_container(
        &self,
        container: &ContainerId,
        process: &ProcessSpec,
    ) -> Result<Process> {
        self.not_ended(container)?;
        fault::point("exec.begun")?;
        let exec = self.new_exec_id()?;
        let mut entering = Entering {
            sandbox: self,
            container,
            exec: &exec,
            settled: false,
        };
        let entered = self.enter(container, exec.clone(), process).await;
        if let Err(Error::Agent(error)) = &entered {
            // What the guest refused is not there.
            entering.settled = error.code().is_some();
        }
        let entered = entered?;
        fault::point("exec.made")?;
        entering.settled = true;
        Ok(entered)
    }

    /// Adds a process as [`SandboxHandle::enter_container`] does, whose life is bound from the
    /// beginning: it is killed when the lease is dropped or this process ends, also while it is
    /// being made.
    ///
    /// # Errors
    ///
    /// Those of [`SandboxHandle::enter_container`], and [`Error::System`] when the sandbox's keeper
    /// does not listen any more.
    pub async fn enter_container_leased(
        &self,
        container: &ContainerId,
        process: &ProcessSpec,
    ) -> Result<(Process, Lease)> {
        self.not_ended(container)?;
        fault::point("exec.begun")?;
        let exec = self.new_exec_id()?;
        let mut lease = Lease::take(self.0.directory.path(), container, Some(&exec))?;
        fault::point("exec.leased")?;
        let process = self.enter(container, exec, process).await?;
        lease.made()?;
        fault::point("exec.made")?;
        Ok((process, lease))
    }

    async fn enter(
        &self,
        container: &ContainerId,
        exec: ExecId,
        process: &ProcessSpec,
    ) -> Result<Process> {
        let streams = self.0.guest.enter(container, &exec, process).await?;
        Ok(Process {
            sandbox: self.clone(),
            container: container.clone(),
            exec: Some(exec),
            streams: Some(streams),
        })
    }

    /// The processes of a container as the guest knows them.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], and [`Error::Agent`].
    pub async fn process_list_container(
        &self,
        container: &ContainerId,
    ) -> Result<Vec<GuestProcess>> {
        self.existing(container)?;
        self.0.guest.processes(container).await
    }

    /// Stops the processes of a container where they are. The machine goes on.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], [`Error::Agent`] when it does not run, [`Error::Types`] when it is
    /// paused already.
    pub async fn pause_container(&self, container: &ContainerId) -> Result<()> {
        self.existing(container)?
            .transition(ContainerState::Paused)?;
        self.0.guest.pause(container).await?;
        states::container(&self.0.directory, container, ContainerState::Paused).await
    }

    /// Lets the processes of a paused container go on.
    ///
    /// # Errors
    ///
    /// As [`SandboxHandle::pause_container`].
    pub async fn resume_container(&self, container: &ContainerId) -> Result<()> {
        self.existing(container)?.resume()?;
        self.0.guest.resume(container).await?;
        states::container(&self.0.directory, container, ContainerState::Running).await
    }

    /// What a container has used of the guest. What the guest says is bounded.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], [`Error::Agent`].
    pub async fn stats_container(&self, container: &ContainerId) -> Result<ContainerStats> {
        self.existing(container)?;
        Ok(self.0.guest.stats(container).await?.into())
    }

    /// What each running container has used of the guest.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; one container whose statistics cannot be had does not hide the others.
    pub async fn stats(&self) -> Result<BTreeMap<ContainerId, Result<ContainerStats>>> {
        let mut all = BTreeMap::new();
        for (container, seen) in self.status()?.containers {
            if matches!(seen.state, ContainerState::Running | ContainerState::Paused) {
                let stats = self.stats_container(&container).await;
                all.insert(container, stats);
            }
        }
        Ok(all)
    }

    /// Waits until a container of the sandbox runs out of memory, and says which. The kernel ends
    /// processes of it then.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the machine ends first, [`Error::Agent`].
    pub async fn get_oom_event(&self) -> Result<ContainerId> {
        self.0.guest.oom_event().await
    }

    /// Waits until the sandbox's machine has ended, and says why: nothing else ends this wait but
    /// the end of the connection to the guest.
    ///
    /// # Errors
    ///
    /// [`Error::Agent`] when the connection breaks and the machine is not seen to have ended.
    pub async fn monitor(&self) -> Result<EndReason> {
        self.0.guest.ended().await
    }

    /// The first process of a container, with its streams if they were attached and not taken yet.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`].
    pub fn process(&self, container: &ContainerId) -> Result<Process> {
        self.existing(container)?;
        Ok(Process {
            sandbox: self.clone(),
            container: container.clone(),
            exec: None,
            streams: self.take_streams(container),
        })
    }

    /// The standard streams of a container that was to be attached to; once.
    pub fn take_streams(&self, container: &ContainerId) -> Option<Streams> {
        self.0
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(container)
    }

    /// Waits for the end of a container's first process, and writes it down.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the machine ends first: the process is lost then, which is never a
    /// success. [`Error::Agent`] when the agent does not know the container.
    pub async fn wait_process(&self, container: &ContainerId) -> Result<ProcessExit> {
        let exit = ProcessExit::of(self.0.guest.wait(container, None).await?);
        states::ended(
            &self.0.directory,
            container,
            exit.status.clone(),
            exit.refused(),
        )
        .await?;
        Ok(exit)
    }

    /// Tells the terminal of a container's first process its size, in characters.
    ///
    /// # Errors
    ///
    /// [`Error::Agent`] when the process has no terminal.
    pub async fn winsize_process(
        &self,
        container: &ContainerId,
        rows: u16,
        columns: u16,
    ) -> Result<()> {
        self.0.guest.winsize(container, None, rows, columns).await
    }

    /// Refuses what is asked of a container that is not there, or not yet.
    pub(super) fn existing(&self, container: &ContainerId) -> Result<ContainerState> {
        let status = self.status()?;
        match status.containers.get(container) {
            Some(seen) if seen.creating => Err(Error::ContainerCreating {
                container: container.clone(),
            }),
            Some(seen) => Ok(seen.state),
            None => Err(Error::NoContainer {
                sandbox: self.id().clone(),
                container: container.clone(),
            }),
        }
    }

    /// Refuses a container to which no process can be added any more.
    pub(super) fn not_ended(&self, container: &ContainerId) -> Result<()> {
        match self.existing(container)? {
            ContainerState::Stopped => Err(Error::ContainerEnded {
                container: container.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether a container was started all the same, though the call has failed with `error`: what
    /// is known of its end, and the guest, say so.
    async fn started_after_all(&self, container: &ContainerId, error: Error) -> Result<()> {
        let entry = self.0.directory.read().ok();
        let entry = entry.and_then(|mut record| record.containers.remove(container));
        match (error, entry) {
            // Its machine ended, and was faster than the answer.
            (Error::Ended { .. } | Error::Agent(_), Some(entry)) if states::has_run(&entry) => {
                Ok(())
            }
            (
                Error::Ended { .. },
                Some(ContainerRecord {
                    start_refused: Some(reason),
                    ..
                }),
            ) => Err(Error::StartRefused {
                container: container.clone(),
                reason,
            }),
            // Whoever started it was killed before the state said so.
            (Error::Agent(error), _)
                if error.code() == Some(Code::FailedPrecondition)
                    && self.runs_in_guest(container).await =>
            {
                Ok(())
            }
            (error, _) => Err(error),
        }
    }

    async fn runs_in_guest(&self, container: &ContainerId) -> bool {
        let processes = self.0.guest.processes(container).await;
        processes.is_ok_and(|processes| !processes.is_empty())
    }

    /// Unique in the sandbox: whoever else adds processes is another process, or came before.
    pub(super) fn new_exec_id(&self) -> Result<ExecId> {
        let number = self.0.added.fetch_add(1, Ordering::Relaxed);
        let (pid, now) = (std::process::id(), Timeline::now());
        ExecId::new(format!("exec-{pid}-{now}-{number}")).map_err(|error| Error::System {
            attempt: "name a process".into(),
            source: std::io::Error::other(error),
        })
    }
}

/// A process that is being added; dropped before somebody has it, it is killed once it is made.
struct Entering<'a> {
    sandbox: &'a SandboxHandle,
    container: &'a ContainerId,
    exec: &'a ExecId,
    settled: bool,
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        // Outside of an executor there is nobody who could: the keeper ends then.
        if !self.settled
            && let Ok(executor) = tokio::runtime::Handle::try_current()
        {
            let (sandbox, exec) = (self.sandbox.clone(), self.exec.clone());
            let container = self.container.clone();
            executor.spawn(async move {
                if let Err(error) = lease::end_added(&sandbox, &container, &exec, false).await {
                    tracing::debug!(%container, %exec, %error, "nothing to end");
                }
            });
        }
    }
}

impl std::fmt::Debug for SandboxHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SandboxHandle")
            .field("id", self.id())
            .finish_non_exhaustive()
    }
}
