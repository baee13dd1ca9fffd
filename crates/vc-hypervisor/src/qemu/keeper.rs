use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use qapi::qmp::ShutdownCause;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, info, warn};
use vc_launch::{LaunchedProcess, ProcessEnd};
use vc_types::{SandboxId, Signal};

use super::config::QemuLimits;
use super::qmp::{Qmp, QmpEvent};
use super::socket::SocketFile;
use super::state::QemuState;
use super::vm::{KeptVm, Running};
use crate::log::last_lines;
use crate::watched_fd::WatchedFd;
use crate::{Error, Result, VmEnd};

/// How long events and output may still come once QEMU has ended: they lie in buffers of the
/// kernel.
const REST_LIMIT: Duration = Duration::from_millis(500);

/// Events that are read once QEMU has ended.
const REST_EVENTS_MAX: usize = 10_000;

/// Lines of QEMU's messages that become part of the reason.
const MESSAGE_LINES: usize = 5;

/// What the keeper holds of one VM. Its task ends with QEMU.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) sandbox: SandboxId,
    pub(super) process: LaunchedProcess,
    pub(super) events: Qmp,
    pub(super) drains: Drains,
    pub(super) socket: SocketFile,
    /// Where the guest of a clone reads how it goes on.
    pub(super) _template_port: Option<UnixStream>,
}

/// The tasks that read QEMU's pipes, and where its messages land.
#[derive(Debug)]
pub(super) struct Drains {
    pub(super) tasks: [JoinHandle<()>; 2],
    pub(super) messages: File,
}

/// Why the VM ends, as far as events said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    Shutdown(ShutdownCause),
    Panic,
}

impl Keeper {
    /// Begins to watch, and gives out the handle.
    pub(super) fn keep(self, state: QemuState, limits: QemuLimits) -> Result<KeptVm> {
        let failed = |source| Error::Launch {
            sandbox: self.sandbox.clone(),
            source,
        };
        let pidfd = self.process.pidfd().map_err(failed)?;
        let (sender, end) = watch::channel(None);
        let stopping = Arc::new(AtomicBool::new(false));
        tokio::spawn(self.run(Arc::clone(&stopping), sender));
        let running = Running::new(state, limits);
        Ok(KeptVm::new(running, pidfd, stopping, end))
    }

    async fn run(mut self, stopping: Arc<AtomicBool>, sender: watch::Sender<Option<VmEnd>>) {
        let mut announced = None;
        let end = self.watch(&mut announced).await;
        self.read_rest(&mut announced).await;
        self.drains.finish().await;
        let end = match end {
            Ok(end) => self
                .drains
                .end_of(end, stopping.load(Ordering::Relaxed), announced),
            Err(error) => {
                warn!(sandbox = %self.sandbox, %error, "cannot watch QEMU");
                VmEnd::Unseen
            }
        };
        info!(sandbox = %self.sandbox, %end, "the VM ended");
        drop(self.socket);
        sender.send_replace(Some(end));
    }

    /// Follows the events until the process has ended.
    async fn watch(&mut self, announced: &mut Option<Announced>) -> Result<ProcessEnd, io::Error> {
        let Self {
            process, events, ..
        } = self;
        let mut ended = std::pin::pin!(ended(process));
        loop {
            tokio::select! {
                biased;
                end = &mut ended => return end,
                event = events.next_event() => match event {
                    Ok(Some(event)) => note(&self.sandbox, event, announced),
                    Ok(None) => return ended.await,
                    Err(error) => {
                        // Without events the reason of the end is known less well; it is still
                        // an end.
                        warn!(sandbox = %self.sandbox, %error, "no more events of QEMU");
                        return ended.await;
                    }
                },
            }
            // A flood of events must not keep the others of this thread waiting.
            tokio::task::yield_now().await;
        }
    }

    /// Reads what QEMU said before it ended.
    async fn read_rest(&mut self, announced: &mut Option<Announced>) {
        let rest = async {
            for _ in 0..REST_EVENTS_MAX {
                match self.events.next_event().await {
                    Ok(Some(event)) => note(&self.sandbox, event, announced),
                    Ok(None) | Err(_) => return,
                }
            }
        };
        if timeout(REST_LIMIT, rest).await.is_err() {
            debug!(sandbox = %self.sandbox, "QEMU's events have no end");
        }
    }
}

fn note(sandbox: &SandboxId, event: QmpEvent, announced: &mut Option<Announced>) {
    match event {
        // A panic comes with a shutdown after it, and says more.
        QmpEvent::GuestPanicked => *announced = Some(Announced::Panic),
        QmpEvent::Shutdown(cause) => {
            announced.get_or_insert(Announced::Shutdown(cause));
        }
        QmpEvent::Stopped => debug!(%sandbox, "the processors stand still"),
        QmpEvent::Resumed => debug!(%sandbox, "the processors go on"),
        QmpEvent::DeviceDeleted(device) => debug!(%sandbox, device, "the guest let go of it"),
        QmpEvent::Migration(_) | QmpEvent::Other => {}
    }
}

/// Waits for a process's end and reaps it.
pub(super) async fn ended(process: &mut LaunchedProcess) -> io::Result<ProcessEnd> {
    let pidfd = process.pidfd().map_err(io::Error::other)?;
    let pidfd = WatchedFd::new(pidfd)?;
    loop {
        let mut ready = pidfd.readable().await?;
        match process.try_wait().map_err(io::Error::other)? {
            Some(end) => return Ok(end),
            None => ready.clear_ready(),
        }
    }
}

impl Drains {
    /// Waits until the pipes are read to their end.
    pub(super) async fn finish(&mut self) {
        for task in &mut self.tasks {
            if timeout(REST_LIMIT, &mut *task).await.is_err() {
                task.abort();
            }
        }
    }

    /// Puts together what the kernel, the events and QEMU's messages say.
    pub(super) fn end_of(
        &self,
        end: ProcessEnd,
        stopping: bool,
        announced: Option<Announced>,
    ) -> VmEnd {
        use ShutdownCause::{guest_panic, guest_reset, guest_shutdown, host_qmp_quit, host_signal};
        match (end, announced) {
            (ProcessEnd::Signal(Signal::KILL), _) if stopping => VmEnd::Stopped { killed: true },
            (ProcessEnd::Signal(signal), _) => VmEnd::Killed { signal },
            (ProcessEnd::Code(_), Some(Announced::Panic | Announced::Shutdown(guest_panic))) => {
                VmEnd::GuestPanicked
            }
            (ProcessEnd::Code(0), Some(Announced::Shutdown(guest_shutdown))) => {
                VmEnd::GuestShutdown
            }
            (ProcessEnd::Code(0), Some(Announced::Shutdown(guest_reset))) => VmEnd::GuestReset,
            (ProcessEnd::Code(0), Some(Announced::Shutdown(host_qmp_quit))) => {
                VmEnd::Stopped { killed: false }
            }
            (ProcessEnd::Code(0), Some(Announced::Shutdown(host_signal))) => VmEnd::Killed {
                signal: Signal::TERM,
            },
            (ProcessEnd::Code(code), _) => VmEnd::Failed {
                code,
                messages: last_lines(&self.messages, MESSAGE_LINES).unwrap_or_default(),
            },
        }
    }
}
