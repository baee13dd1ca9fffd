//! Sandboxes: how they come up, what is done with a running one, and how they end.

pub(crate) mod config;
pub(crate) mod place;
pub(crate) mod surroundings;
pub(crate) mod vsock;

mod cgroups;
mod clock;
mod containers;
mod copy;
mod create;
mod delete;
mod devices;
mod failure;
mod gc;
mod guest;
mod handle;
mod host_cgroup;
mod kill;
mod lease;
mod machine;
mod making;
mod network;
mod process;
mod process_log;
mod resize;
mod restart;
mod states;
mod stop;
mod waiting;

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vc_hypervisor::{StopLimits, qemu};
use vc_store::ContainerRecord;
use vc_types::{
    ClockPoint, ContainerId, ContainerState, EndReason, ExitStatus, SandboxState, Timeline,
};

pub use self::copy::CopyOptions;
pub(crate) use cgroups::container_name;
pub use config::{SandboxConfig, Scratch, VmConfig};
pub(crate) use containers::{forget, forgotten_where_ended};
pub(crate) use create::create;
pub(crate) use delete::delete;
pub use devices::{Device, DeviceConfig};
pub(crate) use gc::gc;
pub use gc::{GcReport, Removed};
pub use handle::SandboxHandle;
pub(crate) use handle::fetch;
pub use host_cgroup::HostCgroup;
pub use lease::Lease;
use network::FollowedNetwork;
pub(crate) use network::RESOLVER;
pub use network::{Address, EndpointConfig, Interface, NetworkConfig, Route, VhostUserConfig};
pub use process::{GuestProcess, Process, ProcessExit};
pub use restart::Started;
pub(crate) use restart::start;
pub(crate) use stop::stop;
pub(crate) use surroundings::MKFS;
use waiting::refill;
pub use waiting::{WaitingConfig, WaitingReport, hold};

use crate::error::{Error, FailureReport, Result};
use crate::factory::{Origin, TemplateId};
use crate::fault;
use clock::ClockKeeper;
use lease::Leases;
use machine::Machine;
use place::Place;

/// The guest's console, in the sandbox's directory.
pub const CONSOLE_LOG: &str = "console.log";

/// What the VMM printed.
pub const VMM_LOG: &str = "vmm.log";

/// What the device processes printed.
pub const PROCESS_LOGS: [&str; 4] = [
    "vsock-device.log",
    "virtc-system.log",
    "virtc-user.log",
    "passt.log",
];

/// The names of what a machine has in its sandbox's directory, besides the state.
fn machine_files() -> impl Iterator<Item = &'static str> {
    let logs = [CONSOLE_LOG, VMM_LOG].into_iter().chain(PROCESS_LOGS);
    logs.chain([vsock::DIRECTORY, qemu::COMMANDS_SOCKET])
}

/// A running sandbox, kept by this process: its VM ends when this is dropped.
///
/// Everything that its [`SandboxHandle`] does can be done with it. To leave nothing behind,
/// [`Sandbox::stop`] and [`Sandbox::delete`] it.
pub struct Sandbox {
    clock: ClockKeeper,
    _leases: Leases,
    handle: SandboxHandle,
    machine: Machine,
    /// Goes after the machine, which has its taps.
    network: FollowedNetwork,
    /// Goes after the machine: until its processes have ended, the place says what there is.
    place: Place,
    writable: bool,
    /// The guest's last word that nothing in it is left to be written back.
    at_rest: Mutex<Option<AtRest>>,
    throw_away: bool,
    origin: Origin,
    timeline: Mutex<Timeline>,
    guest_epoch: u64,
    /// A machine like this one's that is to wait, until it is asked for.
    refill: Mutex<Option<WaitingConfig>>,
}

/// The guest said with the end of a container that no process is left in it. It holds as long as
/// no container is made after it.
#[derive(Clone, Debug)]
struct AtRest {
    container: ContainerId,
    containers_made: u64,
}

impl Deref for Sandbox {
    type Target = SandboxHandle;

    fn deref(&self) -> &SandboxHandle {
        &self.handle
    }
}

impl Sandbox {
    /// What is done with it; copies of the handle do not keep it.
    pub fn handle(&self) -> &SandboxHandle {
        &self.handle
    }

    /// The template that its machine went on from; nothing where it booted by itself.
    pub fn template(&self) -> Option<&TemplateId> {
        match &self.origin {
            Origin::Cloned(template) => Some(template),
            Origin::Booted | Origin::Waited => None,
        }
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
        let seen = self.machine.end().reason().await;
        // Whoever ended it from outside has written why.
        match self.place.directory().read() {
            Ok(record) => record.end_reason.unwrap_or(seen),
            // Whoever removed it asked for its end.
            Err(error) if error.is_not_found() => EndReason::Requested,
            Err(_) => seen,
        }
    }

    /// Starts the process of a container, see [`SandboxHandle::start_container`]. After the first
    /// one, a machine is made behind it that waits for the next sandbox, where such are to wait.
    ///
    /// # Errors
    ///
    /// Those of [`SandboxHandle::start_container`].
    pub async fn start_container(&self, container: &ContainerId) -> Result<Option<String>> {
        let not_executed = self.handle.start_container(container).await?;
        self.times().step("start acknowledged");
        self.refill();
        Ok(not_executed)
    }

    /// Has a machine like this one's made that waits for the next sandbox, where such are to wait. It is
    /// made behind everything else, by a process of its own; nobody waits for it. The first call does
    /// it, and [`Sandbox::start_container`] calls it: this is for those whose containers others start.
    pub fn refill(&self) {
        let waiting = self.refill.lock();
        if let Some(waiting) = waiting.unwrap_or_else(PoisonError::into_inner).take() {
            refill(&waiting, self.place.directory());
        }
    }

    /// Starts the containers that wait for their start, in the order in which they were made.
    ///
    /// # Errors
    ///
    /// Those of [`SandboxHandle::start_container`]; those before the one that failed run.
    pub async fn start(&self) -> Result<()> {
        self.handle.start().await
    }

    /// Waits for the end of a container's first process, see [`SandboxHandle::wait_process`].
    ///
    /// # Errors
    ///
    /// Those of [`SandboxHandle::wait_process`].
    pub async fn wait_process(&self, container: &ContainerId) -> Result<ProcessExit> {
        // Before: one that is made while this waits makes the answer one about less than all.
        let containers_made = self.containers_made();
        let answer = self.handle.0.guest.wait(container, None).await?;
        if answer.started_uptime_us > 0 {
            let started = self.guest_epoch.saturating_add(answer.started_uptime_us);
            self.times().mark_at(ClockPoint::Started, started);
        }
        self.times().mark(ClockPoint::Ended);
        *self.rest() = match (answer.at_rest, containers_made) {
            (true, Some(containers_made)) => Some(AtRest {
                container: container.clone(),
                containers_made,
            }),
            // One whose state cannot be read is asked to write back.
            _ => None,
        };
        let exit = ProcessExit::of(answer);
        // The state of a throw-away machine goes in the next moment.
        if !self.throw_away {
            states::ended(
                self.place.directory(),
                container,
                exit.status.clone(),
                exit.refused(),
            )
            .await?;
        }
        Ok(exit)
    }

    /// Makes the machine's processors stand still.
    ///
    /// # Errors
    ///
    /// [`Error::Types`] when it does not run, [`Error::Hypervisor`] when the VMM does not do it in
    /// time.
    pub async fn pause(&self) -> Result<()> {
        let status = self.handle.status()?;
        status.state.transition(SandboxState::Paused)?;
        self.machine.vm().pause().await?;
        states::sandbox(self.place.directory(), SandboxState::Paused).await
    }

    /// Lets the machine go on, with its clock set to now.
    ///
    /// # Errors
    ///
    /// [`Error::Types`] when it is not paused, [`Error::Hypervisor`] when the VMM does not do it
    /// in time, [`Error::Agent`] when the clock cannot be set.
    pub async fn resume(&self) -> Result<()> {
        let status = self.handle.status()?;
        status.state.transition(SandboxState::Running)?;
        self.machine.vm().resume().await?;
        states::sandbox(self.place.directory(), SandboxState::Running).await?;
        Ok(self.clock.correct().await?)
    }

    /// Ends the machine without the guest's help and waits until its processes are gone. What ran
    /// in it is lost. Its state is kept until it is deleted, unless it is of the throw-away kind.
    ///
    /// Where changes reach the host, the guest is asked first to write back what it holds, within
    /// the limit of a stop.
    ///
    /// # Errors
    ///
    /// [`Error::Hypervisor`] when the VMM outlives being killed, [`Error::Store`] when the state
    /// cannot be written.
    pub async fn stop(&self) -> Result<EndReason> {
        let reason = self.end_machine().await?;
        if !self.throw_away {
            self.place.stopped(reason.clone(), None).await?;
        }
        Ok(reason)
    }

    fn containers_made(&self) -> Option<u64> {
        let record = self.place.directory().read();
        record.ok().map(|record| record.containers_made)
    }

    fn is_at_rest(&self) -> bool {
        let Some(rest) = self.rest().clone() else {
            return false;
        };
        self.place.directory().read().is_ok_and(|record| {
            let ended = |(id, entry): (&ContainerId, &ContainerRecord)| {
                *id == rest.container || entry.state == ContainerState::Stopped
            };
            rest.containers_made == record.containers_made && record.containers.iter().all(ended)
        })
    }

    fn rest(&self) -> MutexGuard<'_, Option<AtRest>> {
        self.at_rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the machine once the guest has written back, and takes away what was added to the
    /// network for it.
    async fn end_machine(&self) -> Result<EndReason> {
        fault::point("stop.begun")?;
        if self.writable && !self.is_at_rest() {
            tokio::select! {
                // One that has ended is asked for nothing.
                biased;
                _ = self.ended() => {}
                () = self.handle.write_back() => {}
            }
        }
        let reason = self.machine.stop(StopLimits::AT_ONCE).await?;
        self.times().step("machine ended");
        fault::point("stop.vmm-ended")?;
        self.network.undo().await?;
        Ok(reason)
    }

    /// Removes the sandbox's state. The machine ends if it still runs.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the state cannot be removed.
    pub async fn delete(self) -> Result<Timeline> {
        self.machine.stop(StopLimits::AT_ONCE).await?;
        self.network.undo().await?;
        let mut timeline = self.timeline();
        self.place.remove().await?;
        fault::point("delete.state-removed")?;
        timeline.mark(ClockPoint::Exit);
        Ok(timeline)
    }

    /// Stops the sandbox as [`Sandbox::stop`] does, and keeps its state and logs until somebody
    /// deletes it, with how one of its containers ended.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::stop`]. Where the state cannot be written, it is removed.
    pub async fn keep(self, container: &ContainerId, exit: ExitStatus) -> Result<Timeline> {
        let reason = self.end_machine().await?;
        let mut timeline = self.timeline();
        let ended = Some((container.clone(), exit));
        self.place.stopped(reason, ended).await?;
        fault::point("stop.written")?;
        timeline.mark(ClockPoint::Exit);
        Ok(timeline)
    }

    /// Brings the guest what is in its network namespace now. Changes come by themselves; whoever
    /// made one and goes on with it waits here until it has come.
    ///
    /// # Errors
    ///
    /// [`Error::Network`] when the namespace cannot be looked at, [`Error::Agent`] when the guest does
    /// not take it.
    pub async fn update_network(&self) -> Result<()> {
        self.network.update().await
    }

    /// Keeps what is known of a sandbox in which `error` happened, before it is deleted.
    pub fn keep_failure(&self, error: &Error) -> FailureReport {
        let timeline = self.timeline();
        failure::keep(
            &self.handle.0.runtime,
            self.place.directory(),
            "the run failed",
            error,
            &timeline,
        )
    }

    /// The end of the machine, where that is what `error` of a stream came from.
    pub async fn cause_of(&self, error: Error) -> Error {
        self.machine.end().cause_of(self.id(), error).await
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("id", self.id())
            .finish_non_exhaustive()
    }
}
