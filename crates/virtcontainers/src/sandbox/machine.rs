//! A sandbox's processes on the host, watched as one: when one of them ends, all do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vc_hypervisor::watched_fd::WatchedFd;
use vc_hypervisor::{StopLimits, Vm, VmEnd};
use vc_launch::{LaunchedProcess, Launcher, ProcessEnd};
use vc_types::{EndReason, ProcessIdentity, SandboxId};

use crate::error::{Error, Result};
use crate::factory::{Ended, HAND_OVER_LIMIT, Link};

/// What the state calls the process that held a machine before somebody took it.
pub(crate) const HOLDER: &str = "holder of the machine";

/// How long a killed device process may take to be gone.
const DEVICE_END_LIMIT: Duration = Duration::from_secs(2);

/// How long after a device process its VMM may end for the VMM to be the cause.
const VMM_END_LIMIT: Duration = Duration::from_secs(1);

/// How long after a broken call the end of the machine may be seen.
const END_SEEN_LIMIT: Duration = Duration::from_millis(500);

/// A device process, and what messages call it.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) name: &'static str,
    pub(crate) process: LaunchedProcess,
}

/// The VMM and its device processes, with the task that watches them. Dropping it ends them.
pub(crate) struct Machine {
    vm: Arc<dyn Vm>,
    /// Name and identity of each device process, and of a holder.
    devices: Vec<(&'static str, ProcessIdentity)>,
    stopping: Arc<AtomicBool>,
    end: MachineEnd,
    watcher: JoinHandle<()>,
}

/// The end of a machine, for those who wait for it. It does not keep the machine.
#[derive(Clone, Debug)]
pub(crate) struct MachineEnd(watch::Receiver<Option<EndReason>>);

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("devices", &self.devices)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// Watches over a VM that runs. The launcher lives as long as its processes.
    ///
    /// # Errors
    ///
    /// When the system gives no descriptor to watch a process with.
    pub(crate) fn watch(
        launcher: Option<Arc<Launcher>>,
        vm: Box<dyn Vm>,
        devices: Vec<Device>,
    ) -> Result<Self> {
        let vm: Arc<dyn Vm> = Arc::from(vm);
        let stopping = Arc::new(AtomicBool::new(false));
        let identities = devices
            .iter()
            .map(|device| Ok((device.name, device.process.identity()?)))
            .collect::<Result<Vec<_>>>()?;
        let watched = devices
            .into_iter()
            .map(Watched::new)
            .collect::<Result<Vec<_>>>()?;
        let (say, ended) = watch::channel(None);
        let watcher = tokio::spawn(watch_over(
            launcher,
            Arc::clone(&vm),
            watched,
            Arc::clone(&stopping),
            say,
        ));
        Ok(Self {
            vm,
            devices: identities,
            stopping,
            end: MachineEnd(ended),
            watcher,
        })
    }

    /// A VM that its holder watches over, who is at the other end of `link` and ends it with that.
    /// The holder is one of `processes`.
    pub(crate) fn held(
        vm: Box<dyn Vm>,
        processes: Vec<(&'static str, ProcessIdentity)>,
        link: Link,
    ) -> Self {
        let vm: Arc<dyn Vm> = Arc::from(vm);
        let stopping = Arc::new(AtomicBool::new(false));
        let (say, ended) = watch::channel(None);
        let followed = follow(link, Arc::clone(&vm), Arc::clone(&stopping), say);
        let watcher = tokio::spawn(followed);
        Self {
            vm,
            devices: processes,
            stopping,
            end: MachineEnd(ended),
            watcher,
        }
    }

    pub(crate) fn vm(&self) -> &Arc<dyn Vm> {
        &self.vm
    }

    /// Name and identity of each device process.
    pub(crate) fn devices(&self) -> &[(&'static str, ProcessIdentity)] {
        &self.devices
    }

    /// Its end.
    pub(crate) fn end(&self) -> &MachineEnd {
        &self.end
    }

    /// Ends everything without the guest's help, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When the VMM outlives being killed.
    pub(crate) async fn stop(&self, limits: StopLimits) -> Result<EndReason> {
        self.stopping.store(true, Ordering::SeqCst);
        let stopped = self.vm.stop(limits);
        if limits == StopLimits::AT_ONCE {
            // All at the same time: each takes the kernel some twenty milliseconds.
            for process in self.vm.processes().iter().chain(self.identities()) {
                if let Err(error) = kill(process) {
                    tracing::warn!(%process, %error, "cannot be killed");
                }
            }
        }
        stopped.await?;
        Ok(self.end.reason().await)
    }

    /// What is killed. A holder ends by itself once it has reaped what it started.
    fn identities(&self) -> impl Iterator<Item = &ProcessIdentity> {
        let devices = self.devices.iter().filter(|(name, _)| *name != HOLDER);
        devices.map(|(_, identity)| identity)
    }
}

impl MachineEnd {
    /// Waits until everything has ended, and says why.
    pub(crate) async fn reason(&self) -> EndReason {
        let mut ended = self.0.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(EndReason::Requested),
            Err(_) => EndReason::VmCrashed {
                detail: "its watcher ended".into(),
            },
        }
    }

    /// Runs `work` for as long as the machine does. What breaks off because the machine ended is
    /// told as its end.
    pub(crate) async fn while_it_runs<T>(
        &self,
        sandbox: &SandboxId,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            // The work's own answer says more than the end that follows it.
            biased;
            done = work => match done {
                Err(error) => Err(self.cause_of(sandbox, error).await),
                done => done,
            },
            reason = self.reason() => Err(Error::Ended { sandbox: sandbox.clone(), reason }),
        }
    }

    /// The end of the machine where `error` came from it: a call or a stream breaks off a moment
    /// before the machine is seen to have ended.
    pub(crate) async fn cause_of(&self, sandbox: &SandboxId, error: Error) -> Error {
        use vc_agent_client::Error as Agent;
        let broke_off = matches!(
            error,
            Error::Agent(
                Agent::Broken { .. }
                    | Agent::Connect { .. }
                    | Agent::Refused { .. }
                    | Agent::Stream { .. }
            )
        );
        if !broke_off {
            return error;
        }
        match timeout(END_SEEN_LIMIT, self.reason()).await {
            Ok(reason) => Error::Ended {
                sandbox: sandbox.clone(),
                reason,
            },
            Err(_) => error,
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.watcher.is_finished() {
            return;
        }
        // Now, whatever the executor does; the task's guards reap them when it is dropped.
        let processes = self.vm.processes();
        for process in processes.iter().chain(self.identities()) {
            if let Err(error) = kill(process) {
                tracing::warn!(%process, %error, "cannot be killed");
            }
        }
        self.watcher.abort();
    }
}

/// Kills a process that may have ended long ago.
///
/// # Errors
///
/// Any error but that it has ended.
pub(crate) fn kill(process: &ProcessIdentity) -> std::io::Result<()> {
    let Some(pidfd) = process.open()? else {
        return Ok(());
    };
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

struct Watched {
    device: Device,
    ended: WatchedFd,
}

impl Watched {
    fn new(device: Device) -> Result<Self> {
        let pidfd = device.process.pidfd()?;
        let ended = WatchedFd::new(pidfd).map_err(|source| Error::System {
            attempt: format!("watch the {}", device.name),
            source,
        })?;
        Ok(Self { device, ended })
    }

    async fn ended(&self) {
        // An error of the reactor would hide an end, so it counts as one.
        let _ = self.ended.readable().await;
    }
}

async fn watch_over(
    launcher: Option<Arc<Launcher>>,
    vm: Arc<dyn Vm>,
    mut devices: Vec<Watched>,
    stopping: Arc<AtomicBool>,
    say: watch::Sender<Option<EndReason>>,
) {
    let first_device = async {
        let all = devices.iter().map(|device| Box::pin(device.ended()));
        futures_util::future::select_all(all).await;
    };
    let reason = tokio::select! {
        end = vm.wait() => end_of_vmm(end, &mut devices),
        _ = first_device, if !devices.is_empty() => {
            match killed(&mut devices) {
                Some(name) => device_ended(name),
                // It ended by itself, as it does when its VMM closes the socket: a moment before
                // the VMM is seen to have ended.
                None => match timeout(VMM_END_LIMIT, vm.wait()).await {
                    Ok(end) => reason_of(end),
                    Err(_) => ended(&mut devices).map_or(
                        EndReason::VmCrashed { detail: "a device process ended".into() },
                        device_ended,
                    ),
                },
            }
        }
    };
    let reason = if stopping.load(Ordering::SeqCst) {
        EndReason::Requested
    } else {
        reason
    };
    for watched in &mut devices {
        if let Err(error) = watched.device.process.kill() {
            tracing::warn!(process = watched.device.name, %error, "cannot be killed");
        }
    }
    if let Err(error) = vm.stop(StopLimits::AT_ONCE).await {
        tracing::error!(%error, "the VMM does not end");
    }
    for watched in &mut devices {
        if timeout(DEVICE_END_LIMIT, watched.ended.readable())
            .await
            .is_err()
        {
            tracing::error!(process = watched.device.name, "does not end");
        }
        if let Err(error) = watched.device.process.try_wait() {
            tracing::warn!(process = watched.device.name, %error, "cannot be reaped");
        }
    }
    drop(devices);
    drop(launcher);
    // Nobody may be listening any more.
    let _ = say.send(Some(reason));
}

/// Waits until the holder of a machine says that it has ended, or is gone itself: its processes end
/// with it.
async fn follow(
    mut link: Link,
    vm: Arc<dyn Vm>,
    stopping: Arc<AtomicBool>,
    say: watch::Sender<Option<EndReason>>,
) {
    let said = {
        let mut said = std::pin::pin!(link.receive::<Ended>());
        let said = tokio::select! {
            said = &mut said => Some(said),
            // Its holder says why a moment later, unless it cannot.
            end = vm.wait() => match timeout(HAND_OVER_LIMIT, said).await {
                Ok(said) => Some(said),
                Err(_) => {
                    tracing::warn!(?end, "the holder of the machine does not tell of its end");
                    None
                }
            },
        };
        match said {
            Some(Ok(Some(Ended { reason }))) => reason,
            Some(Ok(None)) | None => device_ended(HOLDER),
            Some(Err(error)) => {
                tracing::warn!(%error, "the holder of the machine cannot be understood");
                device_ended(HOLDER)
            }
        }
    };
    // The kernel is at it.
    if let Err(error) = vm.stop(StopLimits::AT_ONCE).await {
        tracing::error!(%error, "the VMM does not end");
    }
    let reason = match stopping.load(Ordering::SeqCst) {
        true => EndReason::Requested,
        false => said,
    };
    // It leaves nothing to be reaped by somebody else.
    link.hang_up().await;
    if timeout(HAND_OVER_LIMIT, link.closed()).await.is_err() {
        tracing::warn!("the holder of the machine does not end");
    }
    // Nobody may be listening any more.
    let _ = say.send(Some(reason));
}

/// A VMM also ends because somebody killed a device process of it, and that is the cause then.
fn end_of_vmm(end: VmEnd, devices: &mut [Watched]) -> EndReason {
    let own_fault = !matches!(end, VmEnd::Failed { .. });
    match killed(devices) {
        Some(name) if !own_fault => device_ended(name),
        _ => reason_of(end),
    }
}

fn device_ended(name: &'static str) -> EndReason {
    EndReason::DeviceProcessEnded {
        name: name.to_owned(),
    }
}

/// A device process that a signal ended.
fn killed(devices: &mut [Watched]) -> Option<&'static str> {
    devices.iter_mut().find_map(|watched| {
        let end = watched.device.process.try_wait().ok()??;
        matches!(end, ProcessEnd::Signal(_)).then_some(watched.device.name)
    })
}

/// A device process that has ended.
fn ended(devices: &mut [Watched]) -> Option<&'static str> {
    devices.iter_mut().find_map(|watched| {
        let end = watched.device.process.try_wait().ok()?;
        end.map(|_| watched.device.name)
    })
}

fn reason_of(end: VmEnd) -> EndReason {
    match end {
        VmEnd::Stopped { .. } => EndReason::Requested,
        other => EndReason::VmCrashed {
            detail: other.to_string(),
        },
    }
}
