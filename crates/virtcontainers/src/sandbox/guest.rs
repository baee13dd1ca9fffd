//! What is asked of a running guest: by its keeper, and by any other process that fetches it.

use std::time::{Duration, Instant};

use agent_protocol::agent::StatsContainerResponse;
use agent_protocol::oci_convert;
use agent_protocol::virtc::{SyscallFilter, WaitResponse};
use oci_spec::runtime::{LinuxResources, Process as ProcessSpec};
use vc_agent_client::{AgentClient, CallLimits, Code, NewContainer, Transport};
use vc_hypervisor::watched_fd::WatchedFd;
use vc_store::{SandboxDir, View};
use vc_types::{ByteSize, ContainerId, EndReason, ExecId, SandboxId, Signal};

use super::delete::has_ended_by;
use super::machine::MachineEnd;
use super::process::GuestProcess;
use crate::container::filter::PendingFilter;
use crate::container::placement::Placement;
use crate::error::{Error, Result};
use crate::runtime::blocking;
use crate::stream::{Streams, made_and_attached};

/// How long a machine may take to end that does not answer any more because it ends.
const MACHINE_END_LIMIT: Duration = Duration::from_secs(2);

/// Processes of a container that are looked at. A guest that names more has something to hide.
const PROCESSES_MAX: usize = 65_536;

/// Arguments of a process that are looked at.
const ARGUMENTS_MAX: usize = 4096;

/// The way to a guest, and how its end is noticed.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(super) sandbox: SandboxId,
    pub(super) agent: AgentClient,
    pub(super) transport: Transport,
    /// How long attaching to a process may take that is being made.
    pub(super) attach_limit: Duration,
    pub(super) end: EndWatch,
}

/// How the end of the machine is noticed.
#[derive(Debug)]
pub(super) enum EndWatch {
    /// This process keeps the machine.
    Kept(MachineEnd),
    /// Another one does. Its state says why the machine ended, and with the machine the
    /// connection breaks.
    Fetched(SandboxDir),
}

impl Guest {
    /// How long the agent may take, by the configuration.
    pub(super) fn call_limits(limits: &vc_config::Limits) -> CallLimits {
        CallLimits {
            call: limits.agent_call_ms.duration(),
            create: limits.agent_create_ms.duration(),
        }
    }

    /// Runs `work` for as long as the machine does. What breaks off because the machine ended is
    /// told as its end.
    pub(super) async fn while_it_runs<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match &self.end {
            EndWatch::Kept(end) => end.while_it_runs(&self.sandbox, work).await,
            EndWatch::Fetched(directory) => {
                let done = work.await;
                // What the state says of the machine's end is of interest only then.
                let broken = matches!(&done, Err(Error::Agent(error)) if error.is_broken());
                if broken && let Some(reason) = end_of(directory).await {
                    return Err(Error::Ended {
                        sandbox: self.sandbox.clone(),
                        reason,
                    });
                }
                done
            }
        }
    }

    pub(super) async fn start(&self, container: &ContainerId) -> Result<Option<String>> {
        let started = self.agent.start_container(container);
        self.while_it_runs(async { Ok(started.await?) }).await
    }

    pub(super) async fn wait(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
    ) -> Result<WaitResponse> {
        let waited = self.agent.wait_process(container, exec);
        self.while_it_runs(async { Ok(waited.await?) }).await
    }

    pub(super) async fn started(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
    ) -> Result<Option<String>> {
        let started = self.agent.wait_started(container, exec);
        self.while_it_runs(async { Ok(started.await?) }).await
    }

    pub(super) async fn signal(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
        signal: Signal,
    ) -> Result<()> {
        let sent = self.agent.signal_process(container, exec, signal);
        self.while_it_runs(async { Ok(sent.await?) }).await
    }

    pub(super) async fn signal_all(&self, container: &ContainerId, signal: Signal) -> Result<()> {
        let sent = self.agent.signal_container(container, signal);
        self.while_it_runs(async { Ok(sent.await?) }).await
    }

    pub(super) async fn winsize(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
        rows: u16,
        columns: u16,
    ) -> Result<()> {
        let told = self.agent.resize_terminal(container, exec, rows, columns);
        self.while_it_runs(async { Ok(told.await?) }).await
    }

    pub(super) async fn update(
        &self,
        container: &ContainerId,
        resources: &LinuxResources,
    ) -> Result<()> {
        let message =
            oci_convert::resources_to_message(resources).map_err(|source| Error::Protocol {
                container: container.clone(),
                source,
            })?;
        let updated = self.agent.update_container(container, message);
        self.while_it_runs(async { Ok(updated.await?) }).await
    }

    /// Puts to use what the machine got: so many processors, and so much memory beyond its first.
    pub(super) async fn grow(&self, vcpus: u32, more: ByteSize, limit: Duration) -> Result<()> {
        let grown = self.agent.grow(vcpus, more, limit);
        self.while_it_runs(async { Ok(grown.await?) }).await
    }

    pub(super) async fn stats(&self, container: &ContainerId) -> Result<StatsContainerResponse> {
        let answer = self.agent.stats_container(container);
        self.while_it_runs(async { Ok(answer.await?) }).await
    }

    pub(super) async fn oom_event(&self) -> Result<ContainerId> {
        let told = self.agent.oom_event();
        let name = self.while_it_runs(async { Ok(told.await?) }).await?;
        Ok(ContainerId::new(name)?)
    }

    /// Makes a container, and attaches to its streams where that is wanted. Its filter of system calls may
    /// be made meanwhile.
    pub(super) async fn create(
        &self,
        container: &ContainerId,
        placement: &Placement,
        filter: Option<PendingFilter>,
        shared_pids: bool,
    ) -> Result<Option<Streams>> {
        let filter = match filter {
            Some(filter) => filter.made(container, self.attach_limit).await?,
            None => None,
        };
        let filter = filter.map(|filter| SyscallFilter {
            flags: filter.flags(),
            program: filter.program().to_vec(),
            ..SyscallFilter::default()
        });
        let spec =
            oci_convert::spec_to_message(&placement.spec).map_err(|source| Error::Protocol {
                container: container.clone(),
                source,
            })?;
        let new = NewContainer {
            spec,
            storages: placement.storages.clone(),
            shared_pids,
            filter,
            files: placement.files.clone(),
        };
        let made = async { Ok(self.agent.create_container(container, new).await?) };
        let attached = async {
            let (transport, limit) = (&self.transport, self.attach_limit);
            let terminal = placement.has_terminal();
            match placement.attach {
                true => Ok(Some(
                    Streams::attach(transport, limit, container, None, terminal).await?,
                )),
                false => Ok(None),
            }
        };
        made_and_attached(made, attached).await
    }

    /// Ends what runs of a container, and removes it. One that is not there is removed.
    pub(super) async fn remove(&self, container: &ContainerId) -> Result<()> {
        let removed = self.agent.remove_container(container);
        self.while_it_runs(async {
            match removed.await {
                Err(error) if error.code() == Some(Code::NotFound) => Ok(()),
                removed => Ok(removed?),
            }
        })
        .await
    }

    /// See [`AgentClient::forget_paths`].
    pub(super) async fn forget_paths(&self, paths: Vec<String>) -> Result<()> {
        let forgotten = self.agent.forget_paths(paths);
        self.while_it_runs(async { Ok(forgotten.await?) }).await
    }

    /// Waits for the end of the machine.
    pub(super) async fn ended(&self) -> Result<EndReason> {
        match &self.end {
            EndWatch::Kept(end) => Ok(end.reason().await),
            EndWatch::Fetched(directory) => {
                let watched = |source| Error::System {
                    attempt: format!("watch the VMM of sandbox {}", self.sandbox),
                    source,
                };
                let vmm = directory.read()?.vmm_process;
                if let Some(pidfd) = vmm.map(|vmm| vmm.open()).transpose().map_err(watched)? {
                    let pidfd = pidfd.map(WatchedFd::new).transpose().map_err(watched)?;
                    if let Some(pidfd) = pidfd {
                        let _ended = pidfd.readable().await.map_err(watched)?;
                    }
                }
                Ok(known_end(directory).unwrap_or(EndReason::VmCrashed {
                    detail: "its VMM's process has ended".into(),
                }))
            }
        }
    }

    /// Adds a process, and attaches to its streams while it is made.
    pub(super) async fn enter(
        &self,
        container: &ContainerId,
        exec: &ExecId,
        process: &ProcessSpec,
    ) -> Result<Streams> {
        let message =
            oci_convert::process_to_message(process).map_err(|source| Error::Protocol {
                container: container.clone(),
                source,
            })?;
        let terminal = process.terminal() == Some(true);
        let made = self.agent.exec_process(container, exec, message);
        self.enter_made(container, exec, terminal, made).await
    }

    /// Attaches to the streams of a process while `made` makes it.
    pub(super) async fn enter_made(
        &self,
        container: &ContainerId,
        exec: &ExecId,
        terminal: bool,
        made: impl Future<Output = vc_agent_client::Result<()>>,
    ) -> Result<Streams> {
        let (transport, limit) = (&self.transport, self.attach_limit);
        self.while_it_runs(async {
            let attached = Streams::attach(transport, limit, container, Some(exec), terminal);
            made_and_attached(async { Ok(made.await?) }, async { Ok(attached.await?) }).await
        })
        .await
    }

    pub(super) async fn pause(&self, container: &ContainerId) -> Result<()> {
        let paused = self.agent.pause_container(container);
        self.while_it_runs(async { Ok(paused.await?) }).await
    }

    pub(super) async fn resume(&self, container: &ContainerId) -> Result<()> {
        let resumed = self.agent.resume_container(container);
        self.while_it_runs(async { Ok(resumed.await?) }).await
    }

    /// The processes of a container. What the guest says is bounded and without control
    /// characters.
    pub(super) async fn processes(&self, container: &ContainerId) -> Result<Vec<GuestProcess>> {
        let listed = self.agent.list_processes(container);
        let entries = self.while_it_runs(async { Ok(listed.await?) }).await?;
        let text = |text: &String| vc_types::one_line(text);
        let processes = entries
            .iter()
            .take(PROCESSES_MAX)
            .map(|entry| GuestProcess {
                pid: entry.pid,
                parent: entry.ppid,
                uid: entry.uid,
                state: text(&entry.state),
                command: text(&entry.command),
                args: entry.args.iter().take(ARGUMENTS_MAX).map(text).collect(),
            });
        Ok(processes.collect())
    }
}

/// Why a machine has ended to which a connection broke: that is so before its processes have ended.
pub(super) async fn end_of(directory: &SandboxDir) -> Option<EndReason> {
    if let Some(reason) = known_end(directory) {
        return Some(reason);
    }
    let Some(vmm) = directory.read().ok().and_then(|record| record.vmm_process) else {
        // It was written down just now.
        return known_end(directory);
    };
    let limit = Instant::now() + MACHINE_END_LIMIT;
    let ended = blocking(move || Ok(has_ended_by(&vmm, limit))).await;
    let ended = ended.is_ok_and(|ended| ended);
    ended.then(|| known_end(directory)).flatten()
}

/// Why the machine of a fetched sandbox ended, if it has. A sandbox that is not there any more
/// was ended by somebody.
fn known_end(directory: &SandboxDir) -> Option<EndReason> {
    match directory.read() {
        Ok(record) => View::of(&record).end_reason,
        Err(error) if error.is_not_found() => Some(EndReason::Requested),
        Err(_) => None,
    }
}
