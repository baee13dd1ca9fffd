use async_trait::async_trait;
use vc_types::ProcessIdentity;

use super::{MockState, Script, Step};
use crate::{AgentAddress, DriverState, Error, Result, StopLimits, Vm, VmEnd};

/// A VM that is only its script.
#[derive(Debug)]
pub(super) struct MockVm {
    agent: AgentAddress,
    script: Script,
    /// The VM ends with this value.
    is_keeper: bool,
}

impl MockVm {
    pub(super) fn new(agent: AgentAddress, script: Script, is_keeper: bool) -> Self {
        Self {
            agent,
            script,
            is_keeper,
        }
    }

    async fn command(&self, step: Step) -> Result<()> {
        self.script.follow(step).await?;
        match self.script.ended() {
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
        &self.agent
    }

    fn state(&self) -> DriverState {
        DriverState::Mock(MockState {
            agent: self.agent.clone(),
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
        self.script.end(VmEnd::Stopped {
            killed: limits.quit.is_zero(),
        });
        Ok(self.script.ended().unwrap_or(VmEnd::Unseen))
    }

    async fn wait(&self) -> VmEnd {
        self.script.wait().await
    }
}

impl Drop for MockVm {
    fn drop(&mut self) {
        if self.is_keeper {
            self.script.end(VmEnd::Stopped { killed: true });
        }
    }
}
