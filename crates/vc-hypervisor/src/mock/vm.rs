use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use vc_types::ProcessIdentity;

use super::{MockState, Script, Step};
use crate::{AgentAddress, DriverState, Error, Result, StopLimits, Vm, VmEnd};

/// A machine that is only its end.
#[derive(Debug)]
pub(super) struct Machine {
    agent: AgentAddress,
    end: watch::Sender<Option<VmEnd>>,
}

impl Machine {
    pub(super) fn new(agent: AgentAddress) -> Self {
        Self {
            agent,
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
    /// The VM ends with this value.
    is_keeper: bool,
}

impl MockVm {
    pub(super) fn new(machine: Arc<Machine>, script: Script, is_keeper: bool) -> Self {
        Self {
            machine,
            script,
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
        })
    }

    async fn pause(&self) -> Result<()> {
        self.command(Step::Pause).await
    }

    async fn resume(&self) -> Result<()> {
        self.command(Step::Resume).await
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
