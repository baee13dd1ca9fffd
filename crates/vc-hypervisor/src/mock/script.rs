use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::vm::Machine;
use crate::{AgentAddress, Error, Result, VmEnd};

/// A step of a VM's life that a script can make fail or hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// [`Hypervisor::launch`](crate::Hypervisor::launch).
    Launch,
    /// [`Vm::pause`](crate::Vm::pause).
    Pause,
    /// [`Vm::resume`](crate::Vm::resume).
    Resume,
    /// [`Vm::plug`](crate::Vm::plug).
    Plug,
    /// [`Vm::unplug`](crate::Vm::unplug).
    Unplug,
    /// [`Vm::resize`](crate::Vm::resize).
    Resize,
    /// [`Vm::stop`](crate::Vm::stop).
    Stop,
    /// [`Vm::wait`](crate::Vm::wait), which can only hang.
    Wait,
}

/// What the VMs of one mock do, and when they end. Clones are the same script.
#[derive(Clone, Debug)]
pub struct Script {
    failures: Arc<Mutex<HashMap<Step, String>>>,
    hanging: Arc<watch::Sender<Vec<Step>>>,
    machines: Arc<Mutex<Vec<Weak<Machine>>>>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            failures: Arc::default(),
            hanging: Arc::new(watch::Sender::new(Vec::new())),
            machines: Arc::default(),
        }
    }
}

impl Script {
    /// The next time that a VM comes to `step`, it fails with `reason`.
    pub fn fail(&self, step: Step, reason: impl Into<String>) {
        lock(&self.failures).insert(step, reason.into());
    }

    /// From now on `step` does not come to its end.
    pub fn hang(&self, step: Step) {
        self.hanging.send_modify(|steps| steps.push(step));
    }

    /// `step` goes on.
    pub fn release(&self, step: Step) {
        self.hanging
            .send_modify(|steps| steps.retain(|s| *s != step));
    }

    /// All VMs that run end now, for this reason. One that has ended keeps its first reason.
    pub fn end(&self, end: VmEnd) {
        for machine in lock(&self.machines).iter().filter_map(Weak::upgrade) {
            machine.end(end.clone());
        }
    }

    /// A new VM, which has not ended.
    pub(super) fn begin(&self, agent: AgentAddress) -> Arc<Machine> {
        let machine = Arc::new(Machine::new(agent));
        let mut machines = lock(&self.machines);
        machines.retain(|machine| machine.strong_count() > 0);
        machines.push(Arc::downgrade(&machine));
        machine
    }

    /// The newest VM whose agent is there; where nobody holds one, one that has ended.
    pub(super) fn machine_at(&self, agent: &AgentAddress) -> Arc<Machine> {
        let machines = lock(&self.machines);
        let mut living = machines.iter().rev().filter_map(Weak::upgrade);
        living
            .find(|machine| machine.agent() == agent)
            .unwrap_or_else(|| {
                let gone = Machine::new(agent.clone());
                gone.end(VmEnd::Unseen);
                Arc::new(gone)
            })
    }

    /// Does what the script says about `step`.
    pub(super) async fn follow(&self, step: Step) -> Result<()> {
        self.pass(step).await;
        match lock(&self.failures).remove(&step) {
            Some(reason) => Err(Error::Scripted { reason }),
            None => Ok(()),
        }
    }

    /// Waits while `step` hangs.
    pub(super) async fn pass(&self, step: Step) {
        let mut hanging = self.hanging.subscribe();
        // An error would mean that the sender is gone, and it lives in `self`.
        let _ = hanging.wait_for(|steps| !steps.contains(&step)).await;
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
