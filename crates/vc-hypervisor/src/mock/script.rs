use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::{Error, Result, VmEnd};

/// A step of a VM's life that a script can make fail or hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// [`Hypervisor::launch`](crate::Hypervisor::launch).
    Launch,
    /// [`Vm::pause`](crate::Vm::pause).
    Pause,
    /// [`Vm::resume`](crate::Vm::resume).
    Resume,
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
    end: Arc<watch::Sender<Option<VmEnd>>>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            failures: Arc::default(),
            hanging: Arc::new(watch::Sender::new(Vec::new())),
            end: Arc::new(watch::Sender::new(None)),
        }
    }
}

impl Script {
    /// The next time that a VM comes to `step`, it fails with `reason`.
    pub fn fail(&self, step: Step, reason: impl Into<String>) {
        self.failures().insert(step, reason.into());
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

    /// The VM ends now, for this reason. One that has ended keeps its first reason.
    pub fn end(&self, end: VmEnd) {
        self.end.send_if_modified(|current| {
            let is_first = current.is_none();
            current.get_or_insert(end);
            is_first
        });
    }

    /// A new VM has not ended.
    pub(super) fn begin(&self) {
        self.end.send_replace(None);
    }

    /// How the VM ended, if it did.
    pub(super) fn ended(&self) -> Option<VmEnd> {
        self.end.borrow().clone()
    }

    /// Waits for the end.
    pub(super) async fn wait(&self) -> VmEnd {
        self.pass(Step::Wait).await;
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(VmEnd::Unseen),
            // The sender lives in `self`.
            Err(_) => VmEnd::Unseen,
        }
    }

    /// Does what the script says about `step`.
    pub(super) async fn follow(&self, step: Step) -> Result<()> {
        self.pass(step).await;
        match self.failures().remove(&step) {
            Some(reason) => Err(Error::Scripted { reason }),
            None => Ok(()),
        }
    }

    async fn pass(&self, step: Step) {
        let mut hanging = self.hanging.subscribe();
        // An error would mean that the sender is gone, and it lives in `self`.
        let _ = hanging.wait_for(|steps| !steps.contains(&step)).await;
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<Step, String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
