//! What containers use of the guest, and what they may use.

use std::time::Duration;

use agent_protocol::agent::{
    GetOOMEventRequest, StatsContainerRequest, StatsContainerResponse, UpdateContainerRequest,
};
use agent_protocol::oci::LinuxResources;
use protobuf::MessageField;
use ttrpc::context::Context;
use vc_types::ContainerId;

use crate::client::AgentClient;
use crate::error::{Error, Result};

impl AgentClient {
    /// What a container has used. Nothing of it is checked yet.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn stats_container(&self, container: &ContainerId) -> Result<StatsContainerResponse> {
        let request = StatsContainerRequest {
            container_id: container.to_string(),
            ..StatsContainerRequest::default()
        };
        let answer = self.agent.stats_container(self.short(), &request);
        self.little("ask for the statistics", answer).await
    }

    /// Changes what a container may use.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn update_container(
        &self,
        container: &ContainerId,
        resources: LinuxResources,
    ) -> Result<()> {
        let request = UpdateContainerRequest {
            container_id: container.to_string(),
            resources: MessageField::some(resources),
            ..UpdateContainerRequest::default()
        };
        let answer = self.agent.update_container(self.short(), &request);
        self.little("update the container", answer).await?;
        Ok(())
    }

    /// Waits until a container of the guest ran out of memory, and gives the name that the guest
    /// has for it. This call has no limit of its own: the caller races it with the end of the VM.
    ///
    /// # Errors
    ///
    /// [`Error::Agent`], [`Error::Broken`].
    pub async fn oom_event(&self) -> Result<String> {
        let call = "wait for a container without memory";
        let answer = self
            .agent
            .get_oom_event(Context::default(), &GetOOMEventRequest::default())
            .await
            .map_err(Error::from_ttrpc(call, "", Duration::ZERO))?;
        Ok(answer.container_id)
    }
}
