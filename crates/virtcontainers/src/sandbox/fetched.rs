//! A sandbox that another process keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use oci_spec::runtime::Process as ProcessSpec;
use vc_agent_client::{AgentClient, Transport};
use vc_store::{SandboxDir, View};
use vc_types::{ContainerId, ContainerState, ExecId, SandboxId, SandboxState, Signal, Timeline};

use super::guest::{EndWatch, Guest};
use super::process::{GuestProcess, Process};
use super::{place, vsock};
use crate::error::{Error, Result};
use crate::runtime::{Shared, blocking};

/// A running sandbox of another process, to act on and to leave.
///
/// Dropping it changes nothing: the sandbox lives as long as its keeper.
#[derive(Debug)]
pub struct FetchedSandbox {
    directory: SandboxDir,
    guest: Arc<Guest>,
    /// Numbers the processes that this handle adds.
    added: AtomicU32,
}

/// Fetches a running sandbox. Nothing on disk is changed.
pub(crate) async fn fetch(runtime: &Arc<Shared>, id: &SandboxId) -> Result<FetchedSandbox> {
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
    let agent = AgentClient::connect(&transport, Guest::call_limits(limits)).await?;
    let guest = Guest {
        sandbox: id.clone(),
        agent,
        transport,
        attach_limit: limits.agent_create_ms.duration(),
        end: EndWatch::Fetched(directory.clone()),
    };
    Ok(FetchedSandbox {
        directory,
        guest: Arc::new(guest),
        added: AtomicU32::new(0),
    })
}

impl FetchedSandbox {
    /// Its name.
    pub fn id(&self) -> &SandboxId {
        self.directory.id()
    }

    /// Where it and its containers stand.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when it was removed or its state cannot be read.
    pub fn status(&self) -> Result<View> {
        Ok(View::of(&self.directory.read()?))
    }

    /// Starts the process of a container that was made and waits. That its program cannot be
    /// executed is its exit, which its keeper is told.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], [`Error::Types`] when it was started before, [`Error::Agent`].
    pub async fn start_container(&self, container: &ContainerId) -> Result<()> {
        self.allowed(container, ContainerState::Running)?;
        self.guest.start(container).await?;
        place::started(&self.directory, container).await
    }

    /// Adds a process to a running container, with its streams attached.
    ///
    /// That its program cannot be executed is told by [`Process::wait`], as its exit.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], [`Error::Agent`] when the container does not run or is paused, and
    /// [`Error::Ended`] when the machine ends meanwhile.
    pub async fn enter_container(
        &self,
        container: &ContainerId,
        process: &ProcessSpec,
    ) -> Result<Process> {
        self.existing(container)?;
        let exec = self.new_exec_id()?;
        let streams = self.guest.enter(container, &exec, process).await?;
        Ok(Process {
            guest: Arc::clone(&self.guest),
            container: container.clone(),
            exec,
            streams: Some(streams),
        })
    }

    /// Sends a signal to the first process of a container, or to all of them.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], and [`Error::Agent`] when the process has ended.
    pub async fn kill_container(
        &self,
        container: &ContainerId,
        signal: Signal,
        all: bool,
    ) -> Result<()> {
        self.existing(container)?;
        match all {
            true => self.guest.signal_all(container, signal).await,
            false => self.guest.signal(container, None, signal).await,
        }
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
        self.guest.processes(container).await
    }

    /// Stops the processes of a container where they are. The machine goes on.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], [`Error::Agent`] when it does not run, [`Error::Types`] when it is
    /// paused already.
    pub async fn pause_container(&self, container: &ContainerId) -> Result<()> {
        self.allowed(container, ContainerState::Paused)?;
        self.guest.pause(container).await?;
        self.now(container, ContainerState::Paused).await
    }

    /// Lets the processes of a paused container go on.
    ///
    /// # Errors
    ///
    /// As [`FetchedSandbox::pause_container`].
    pub async fn resume_container(&self, container: &ContainerId) -> Result<()> {
        self.allowed(container, ContainerState::Running)?;
        self.guest.resume(container).await?;
        self.now(container, ContainerState::Running).await
    }

    fn existing(&self, container: &ContainerId) -> Result<ContainerState> {
        let status = self.status()?;
        let view = status.containers.get(container);
        view.map(|view| view.state)
            .ok_or_else(|| Error::NoContainer {
                sandbox: self.id().clone(),
                container: container.clone(),
            })
    }

    /// Refuses what the table of transitions does not have, before the guest is asked.
    fn allowed(&self, container: &ContainerId, next: ContainerState) -> Result<()> {
        self.existing(container)?.transition(next)?;
        Ok(())
    }

    async fn now(&self, container: &ContainerId, state: ContainerState) -> Result<()> {
        let (directory, container) = (self.directory.clone(), container.clone());
        blocking(move || {
            directory.try_update(|record| {
                if let Some(entry) = record.containers.get_mut(&container) {
                    entry.state = entry.state.transition(state)?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Unique in the sandbox: whoever else adds processes is another process, or came before.
    fn new_exec_id(&self) -> Result<ExecId> {
        let number = self.added.fetch_add(1, Ordering::Relaxed);
        let (pid, now) = (std::process::id(), Timeline::now());
        ExecId::new(format!("exec-{pid}-{now}-{number}")).map_err(|error| Error::System {
            attempt: "name a process".into(),
            source: std::io::Error::other(error),
        })
    }
}
