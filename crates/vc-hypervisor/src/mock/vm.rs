use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;
use vc_types::{ProcessIdentity, VmSize};

use super::script::lock;
use super::{CAPABILITIES, MockState, Script, Step};
use crate::{
    AgentAddress, CurrentSize, DriverState, Error, Growth, HotDevice, HotPlugRecord, PlugPhase,
    Plugged, Result, StopLimits, Vm, VmEnd,
};

/// A machine that is only its end.
#[derive(Debug)]
pub(super) struct Machine {
    agent: AgentAddress,
    /// The ports that have a device, whatever the account of a host says.
    ports: Mutex<BTreeSet<u8>>,
    /// Its size, where that is not the first one any more.
    size: Mutex<Option<VmSize>>,
    end: watch::Sender<Option<VmEnd>>,
}

impl Machine {
    pub(super) fn new(agent: AgentAddress) -> Self {
        Self {
            agent,
            ports: Mutex::default(),
            size: Mutex::default(),
            end: watch::Sender::new(None),
        }
    }

    pub(super) fn agent(&self) -> &AgentAddress {
        &self.agent
    }

    /// It ends now; one that has ended keeps its first reason.
    pub(super) fn end(&self, end: VmEnd) {
        self.end.send_if_modified(|current| {
            let is_first = current.is_none();
            current.get_or_insert(end);
            is_first
        });
    }

    fn ended(&self) -> Option<VmEnd> {
        self.end.borrow().clone()
    }
}

/// A VM that is only its script.
#[derive(Debug)]
pub(super) struct MockVm {
    machine: Arc<Machine>,
    script: Script,
    hot_plug: Mutex<HotPlugRecord>,
    /// The VM ends with this value.
    is_keeper: bool,
}

impl MockVm {
    pub(super) fn new(
        machine: Arc<Machine>,
        script: Script,
        hot_plug: HotPlugRecord,
        is_keeper: bool,
    ) -> Self {
        Self {
            machine,
            script,
            hot_plug: Mutex::new(hot_plug),
            is_keeper,
        }
    }

    async fn command(&self, step: Step) -> Result<()> {
        self.script.follow(step).await?;
        match self.machine.ended() {
            None => Ok(()),
            Some(end) => Err(Error::Scripted {
                reason: format!("the VM has ended: {end}"),
            }),
        }
    }
}

#[async_trait]
impl Vm for MockVm {
    fn processes(&self) -> Vec<ProcessIdentity> {
        Vec::new()
    }

    fn agent_address(&self) -> &AgentAddress {
        self.machine.agent()
    }

    fn state(&self) -> DriverState {
        DriverState::Mock(MockState {
            agent: self.machine.agent().clone(),
            hot_plug: lock(&self.hot_plug).clone(),
        })
    }

    async fn pause(&self) -> Result<()> {
        self.command(Step::Pause).await
    }

    async fn resume(&self) -> Result<()> {
        self.command(Step::Resume).await
    }

    fn reserve(&self, device: &HotDevice) -> Result<Plugged> {
        device.check(&CAPABILITIES)?;
        lock(&self.hot_plug).reserve(device)
    }

    async fn plug(&self, device: HotDevice) -> Result<Plugged> {
        device.check(&CAPABILITIES)?;
        let place = lock(&self.hot_plug).begin(&device)?;
        let plugged = self.command(Step::Plug).await.and_then(|()| {
            match lock(&self.machine.ports).insert(place.port) {
                true => lock(&self.hot_plug).set_phase(device.id(), PlugPhase::Present),
                false => Err(Error::Scripted {
                    reason: format!("port {} has a device", place.port),
                }),
            }
        });
        if plugged.is_err() {
            lock(&self.hot_plug).free(device.id());
        }
        plugged
    }

    async fn unplug(&self, id: &str) -> Result<()> {
        let place = lock(&self.hot_plug).place(id)?;
        lock(&self.hot_plug).set_phase(id, PlugPhase::Leaving)?;
        self.command(Step::Unplug).await?;
        lock(&self.machine.ports).remove(&place.port);
        lock(&self.hot_plug).free(id);
        Ok(())
    }

    fn plugged(&self) -> Vec<Plugged> {
        lock(&self.hot_plug).plugged()
    }

    fn growth(&self) -> Option<Growth> {
        lock(&self.hot_plug).growth()
    }

    async fn size(&self) -> Result<CurrentSize> {
        let (size, growth) = (*lock(&self.machine.size), self.growth());
        let first = growth.map(|growth| growth.first);
        let offered = size.or(first).ok_or_else(|| Error::Scripted {
            reason: "it has no size".into(),
        })?;
        Ok(CurrentSize {
            offered,
            taken: offered.memory,
        })
    }

    async fn resize(&self, size: VmSize) -> Result<()> {
        self.command(Step::Resize).await?;
        *lock(&self.machine.size) = Some(size);
        Ok(())
    }

    async fn stop(&self, limits: StopLimits) -> Result<VmEnd> {
        self.script.follow(Step::Stop).await?;
        self.machine.end(VmEnd::Stopped {
            killed: limits.quit.is_zero(),
        });
        Ok(self.machine.ended().unwrap_or(VmEnd::Unseen))
    }

    async fn wait(&self) -> VmEnd {
        self.script.pass(Step::Wait).await;
        let mut end = self.machine.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(VmEnd::Unseen),
            // The sender lives in `self`.
            Err(_) => VmEnd::Unseen,
        }
    }
}

impl Drop for MockVm {
    fn drop(&mut self) {
        if self.is_keeper {
            self.machine.end(VmEnd::Stopped { killed: true });
        }
    }
}
