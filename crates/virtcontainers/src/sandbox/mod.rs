//! Sandboxes: how they come up, what is done with a running one, and how they end.

pub(crate) mod config;
pub(crate) mod vsock;

mod clock;
mod create;
mod delete;
mod failure;
mod fetched;
mod gc;
mod guest;
mod machine;
mod place;
mod process;
mod process_log;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vc_hypervisor::StopLimits;
use vc_types::{ClockPoint, ContainerId, EndReason, ExitStatus, SandboxId, Timeline};

pub use config::{SandboxConfig, Scratch, VmConfig};
pub(crate) use create::{MKFS, create};
pub(crate) use delete::delete;
pub use fetched::FetchedSandbox;
pub(crate) use fetched::fetch;
pub(crate) use gc::gc;
pub use gc::{GcReport, Removed};
pub use process::{GuestProcess, Process, ProcessExit};

use crate::error::{Error, FailureReport, Result};
use crate::fault;
use crate::runtime::Shared;
use crate::stream::Streams;
use clock::ClockKeeper;
use guest::Guest;
use machine::Machine;
use place::Place;

/// The guest's console, in the sandbox's directory.
pub const CONSOLE_LOG: &str = "console.log";

/// What the VMM printed.
pub const VMM_LOG: &str = "vmm.log";

/// What the device processes printed.
pub const PROCESS_LOGS: [&str; 3] = ["vsock-device.log", "virtc-system.log", "virtc-user.log"];

/// A running sandbox, kept by this process: its VM ends when the handle is dropped.
///
/// To leave nothing behind, [`Sandbox::stop`] and [`Sandbox::delete`] it.
pub struct Sandbox {
    runtime: Arc<Shared>,
    _clock: ClockKeeper,
    guest: Guest,
    machine: Arc<Machine>,
    /// Goes after the machine, which the guest has too: until its processes have ended, the place
    /// says what there is.
    place: Place,
    /// Attached, and not taken yet.
    streams: Mutex<BTreeMap<ContainerId, Streams>>,
    writable: bool,
    timeline: Mutex<Timeline>,
    guest_epoch: u64,
}

impl Sandbox {
    /// Its name.
    pub fn id(&self) -> &SandboxId {
        self.place.id()
    }

    /// When its start came to which point.
    pub fn timeline(&self) -> Timeline {
        self.times().clone()
    }

    fn times(&self) -> MutexGuard<'_, Timeline> {
        // A panic between two marks leaves a timeline that is good all the same.
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until its machine has ended, and says why.
    pub async fn ended(&self) -> EndReason {
        self.machine.ended().await
    }

    /// Starts the process of a container.
    ///
    /// That a program cannot be executed is told by [`Sandbox::wait_process`], as its exit.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the machine ends meanwhile, [`Error::Agent`] otherwise.
    pub async fn start_container(&self, container: &ContainerId) -> Result<()> {
        self.guest.start(container).await?;
        self.times().step("start acknowledged");
        place::started(self.place.directory(), container).await?;
        fault::point("start.container-started")
    }

    /// Makes the machine's processors stand still.
    ///
    /// # Errors
    ///
    /// [`Error::Hypervisor`] when the VMM does not do it in time.
    pub async fn pause(&self) -> Result<()> {
        Ok(self.machine.vm().pause().await?)
    }

    /// Lets the machine go on, with its clock set to now.
    ///
    /// # Errors
    ///
    /// [`Error::Hypervisor`] when the VMM does not do it in time, [`Error::Agent`] when the clock
    /// cannot be set.
    pub async fn resume(&self) -> Result<()> {
        self.machine.vm().resume().await?;
        Ok(clock::correct(&self.guest.agent).await?)
    }

    /// Ends the machine without the guest's help and waits until its processes are gone.
    ///
    /// Where changes reach the host, the guest is asked first to write back what it holds, within
    /// the limit of a stop.
    ///
    /// # Errors
    ///
    /// [`Error::Hypervisor`] when the VMM outlives being killed.
    pub async fn stop(&self) -> Result<EndReason> {
        fault::point("stop.begun")?;
        if self.writable {
            let limit = self.runtime.config.limits.stop_vmm_ms.duration();
            let written = tokio::time::timeout(limit, self.guest.agent.destroy_sandbox());
            tokio::select! {
                written = written => match written {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "the guest did not write back"),
                    Err(_) => tracing::warn!("the guest did not write back in time"),
                },
                _ = self.machine.ended() => {}
            }
        }
        let reason = self.machine.stop(StopLimits::AT_ONCE).await?;
        self.times().step("machine ended");
        fault::point("stop.vmm-ended")?;
        Ok(reason)
    }

    /// Removes the sandbox's state. The machine ends if it still runs.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the state cannot be removed.
    pub async fn delete(self) -> Result<Timeline> {
        self.machine.stop(StopLimits::AT_ONCE).await?;
        let mut timeline = self.timeline();
        self.place.remove().await?;
        fault::point("delete.state-removed")?;
        timeline.mark(ClockPoint::Exit);
        Ok(timeline)
    }

    /// Keeps the stopped sandbox's state and logs until somebody deletes it.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the state cannot be written; it is removed then.
    pub async fn keep(self, container: &ContainerId, exit: ExitStatus) -> Result<Timeline> {
        let reason = self.machine.stop(StopLimits::AT_ONCE).await?;
        let mut timeline = self.timeline();
        self.place.keep(reason, container, exit).await?;
        timeline.mark(ClockPoint::Exit);
        Ok(timeline)
    }

    /// Keeps what is known of a sandbox in which `error` happened, before it is deleted.
    pub fn keep_failure(&self, error: &Error) -> FailureReport {
        let timeline = self.timeline();
        failure::keep(
            &self.runtime,
            self.place.directory(),
            "the run failed",
            error,
            &timeline,
        )
    }

    /// The end of the machine, where that is what `error` of a stream came from.
    pub async fn cause_of(&self, error: Error) -> Error {
        self.machine.cause_of(self.id(), error).await
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("id", self.id())
            .finish_non_exhaustive()
    }
}
