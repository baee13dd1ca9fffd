use std::future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use qapi::qmp;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, warn};
use vc_types::{ProcessIdentity, VmSize};

use super::config::QemuLimits;
use super::qmp::Qmp;
use super::state::QemuState;
use crate::watched_fd::WatchedFd;
use crate::{
    AgentAddress, CurrentSize, DriverState, Error, Growth, HotDevice, HotPlugRecord, Plugged,
    Result, StopLimits, Vm, VmEnd,
};

/// What its keeper and everybody else can do alike.
#[derive(Debug)]
pub(super) struct Running {
    state: QemuState,
    limits: QemuLimits,
    /// The newest account of what is behind the root ports; that of `state` is the first one.
    hot_plug: Mutex<HotPlugRecord>,
    /// One device comes or goes at a time.
    pub(super) plugging: tokio::sync::Mutex<()>,
}

impl Running {
    pub(super) fn new(state: QemuState, limits: QemuLimits) -> Arc<Self> {
        Arc::new(Self {
            hot_plug: Mutex::new(state.hot_plug.clone()),
            plugging: tokio::sync::Mutex::new(()),
            state,
            limits,
        })
    }

    pub(super) const fn limits(&self) -> &QemuLimits {
        &self.limits
    }

    pub(super) async fn connect(&self) -> Result<Qmp> {
        Qmp::connect(&self.state.commands_socket, self.limits.command).await
    }

    /// The account of the root ports, for no longer than a look or a change.
    pub(super) fn hot_plug(&self) -> MutexGuard<'_, HotPlugRecord> {
        self.hot_plug.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> DriverState {
        DriverState::Qemu(QemuState {
            hot_plug: self.hot_plug().clone(),
            ..self.state.clone()
        })
    }

    /// Runs one command over a connection of its own, so that others get their turn.
    async fn command<C: qmp::QmpCommand>(&self, command: C) -> Result<C::Ok> {
        self.connect()
            .await?
            .execute(command, self.limits.command)
            .await
    }

    async fn pause(&self) -> Result<()> {
        self.command(qmp::stop {}).await.map(drop)
    }

    async fn resume(&self) -> Result<()> {
        self.command(qmp::cont {}).await.map(drop)
    }

    /// Asks, waits, kills, waits.
    async fn stop(
        &self,
        limits: StopLimits,
        kill: impl FnOnce() -> io::Result<()>,
        wait: impl Fn() -> BoxedEnd,
    ) -> Result<VmEnd> {
        let process = &self.state.process;
        let asked = async {
            match self.command(qmp::quit {}).await {
                Ok(_) => wait().await,
                Err(error) => {
                    debug!(%process, %error, "QEMU cannot be asked to end");
                    // It may be ending already; if not, the limit passes.
                    match error {
                        Error::Connection { .. } => wait().await,
                        _ => future::pending().await,
                    }
                }
            }
        };
        if !limits.quit.is_zero()
            && let Ok(end) = timeout(limits.quit, asked).await
        {
            return Ok(end);
        }
        if let Err(error) = kill() {
            warn!(%process, %error, "cannot kill QEMU");
        }
        timeout(limits.kill, wait())
            .await
            .map_err(|_| Error::Unkillable {
                process: process.clone(),
                limit: limits.kill,
            })
    }
}

type BoxedEnd = std::pin::Pin<Box<dyn Future<Output = VmEnd> + Send>>;

/// A VM that this process keeps. QEMU is killed when it is dropped.
#[derive(Debug)]
pub(super) struct KeptVm {
    running: Arc<Running>,
    pidfd: OwnedFd,
    /// Tells the keeper's task that a kill is ours.
    stopping: Arc<AtomicBool>,
    end: watch::Receiver<Option<VmEnd>>,
}

impl KeptVm {
    pub(super) fn new(
        running: Arc<Running>,
        pidfd: OwnedFd,
        stopping: Arc<AtomicBool>,
        end: watch::Receiver<Option<VmEnd>>,
    ) -> Self {
        Self {
            running,
            pidfd,
            stopping,
            end,
        }
    }

    fn kill(&self) -> io::Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        kill(&self.pidfd)
    }

    fn end(&self) -> BoxedEnd {
        let mut end = self.end.clone();
        Box::pin(async move {
            match end.wait_for(Option::is_some).await {
                Ok(end) => end.clone().unwrap_or(VmEnd::Unseen),
                // The keeper's task is gone with its runtime, and QEMU with it.
                Err(_) => VmEnd::Unseen,
            }
        })
    }
}

#[async_trait]
impl Vm for KeptVm {
    fn processes(&self) -> Vec<ProcessIdentity> {
        vec![self.running.state.process.clone()]
    }

    fn agent_address(&self) -> &AgentAddress {
        &self.running.state.agent
    }

    fn state(&self) -> DriverState {
        self.running.state()
    }

    async fn pause(&self) -> Result<()> {
        self.running.pause().await
    }

    async fn resume(&self) -> Result<()> {
        self.running.resume().await
    }

    fn reserve(&self, device: &HotDevice) -> Result<Plugged> {
        self.running.reserve(device)
    }

    async fn plug(&self, device: HotDevice) -> Result<Plugged> {
        Arc::clone(&self.running).plug(device).await
    }

    async fn unplug(&self, id: &str) -> Result<()> {
        Arc::clone(&self.running).unplug(id).await
    }

    fn plugged(&self) -> Vec<Plugged> {
        self.running.hot_plug().plugged()
    }

    fn growth(&self) -> Option<Growth> {
        self.running.hot_plug().growth()
    }

    async fn size(&self) -> Result<CurrentSize> {
        self.running.size().await
    }

    async fn resize(&self, size: VmSize) -> Result<()> {
        self.running.resize(size).await
    }

    async fn stop(&self, limits: StopLimits) -> Result<VmEnd> {
        if let Some(end) = self.end.borrow().clone() {
            return Ok(end);
        }
        let (kill, wait) = (|| self.kill(), || self.end());
        self.running.stop(limits, kill, wait).await
    }

    async fn wait(&self) -> VmEnd {
        self.end().await
    }
}

impl Drop for KeptVm {
    /// The keeper's task goes on until QEMU is reaped, or ends with its runtime, which reaps too.
    fn drop(&mut self) {
        if self.end.borrow().is_none()
            && let Err(error) = self.kill()
        {
            warn!(process = %self.running.state.process, %error, "cannot kill QEMU");
        }
    }
}

/// A VM that another process keeps.
#[derive(Debug)]
pub(super) struct AttachedVm {
    running: Arc<Running>,
}

impl AttachedVm {
    pub(super) fn new(state: QemuState, limits: QemuLimits) -> Self {
        Self {
            running: Running::new(state, limits),
        }
    }

    fn end(&self) -> BoxedEnd {
        let process = self.running.state.process.clone();
        Box::pin(async move {
            let watched = async {
                let Some(pidfd) = process.open()? else {
                    return Ok(());
                };
                WatchedFd::new(pidfd)?.readable().await.map(drop)
            };
            if let Err::<(), io::Error>(error) = watched.await {
                warn!(%process, %error, "cannot watch QEMU");
            }
            VmEnd::Unseen
        })
    }
}

#[async_trait]
impl Vm for AttachedVm {
    fn processes(&self) -> Vec<ProcessIdentity> {
        vec![self.running.state.process.clone()]
    }

    fn agent_address(&self) -> &AgentAddress {
        &self.running.state.agent
    }

    fn state(&self) -> DriverState {
        self.running.state()
    }

    async fn pause(&self) -> Result<()> {
        self.running.pause().await
    }

    async fn resume(&self) -> Result<()> {
        self.running.resume().await
    }

    fn reserve(&self, device: &HotDevice) -> Result<Plugged> {
        self.running.reserve(device)
    }

    async fn plug(&self, device: HotDevice) -> Result<Plugged> {
        Arc::clone(&self.running).plug(device).await
    }

    async fn unplug(&self, id: &str) -> Result<()> {
        Arc::clone(&self.running).unplug(id).await
    }

    fn plugged(&self) -> Vec<Plugged> {
        self.running.hot_plug().plugged()
    }

    fn growth(&self) -> Option<Growth> {
        self.running.hot_plug().growth()
    }

    async fn size(&self) -> Result<CurrentSize> {
        self.running.size().await
    }

    async fn resize(&self, size: VmSize) -> Result<()> {
        self.running.resize(size).await
    }

    async fn stop(&self, limits: StopLimits) -> Result<VmEnd> {
        let kill = || match self.running.state.process.open()? {
            Some(pidfd) => kill(&pidfd),
            None => Ok(()),
        };
        self.running.stop(limits, kill, || self.end()).await
    }

    async fn wait(&self) -> VmEnd {
        self.end().await
    }
}

/// Ends a process with the signal that cannot be refused; one that has ended is no error.
fn kill(pidfd: &OwnedFd) -> io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
