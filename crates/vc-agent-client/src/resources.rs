//! What containers use of the guest, and what they may use.

use std::time::Duration;

use agent_protocol::agent::{
    GetOOMEventRequest, OnlineCPUMemRequest, StatsContainerRequest, StatsContainerResponse,
    UpdateContainerRequest,
};
use agent_protocol::oci::LinuxResources;
use agent_protocol::virtc::GrowRequest;
use protobuf::MessageField;
use ttrpc::context::Context;
use vc_types::{ByteSize, ContainerId};

use crate::client::{AgentClient, context_for, limited};
use crate::error::{Code, Error, Result};

/// What errors call the call.
const GROW: &str = "put to use what the machine got";

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

    /// Puts what the VM got while it ran to use, and waits, at most as long as `limit`, until `vcpus`
    /// processors work (0: as many as do), and `more` memory beyond that of its start. An agent that cannot
    /// say so puts to use what is there.
    ///
    /// # Errors
    ///
    /// As every call; also when so much does not come.
    pub async fn grow(&self, vcpus: u32, more: ByteSize, limit: Duration) -> Result<()> {
        let request = GrowRequest {
            vcpus,
            more_bytes: more.bytes(),
            limit_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
            ..GrowRequest::default()
        };
        // The guest says itself that its time is over.
        let limit = limit.saturating_add(self.limits.call);
        let grown = self.guest.grow(context_for(limit), &request);
        match limited(GROW, "resize_ms", limit, grown).await {
            Err(error) if matches!(error.code(), Some(Code::NotFound | Code::Unimplemented)) => {}
            grown => return grown.map(drop),
        }
        let all = OnlineCPUMemRequest::default();
        let answer = self.agent.online_cpu_mem(self.short(), &all);
        self.little(GROW, answer).await.map(drop)
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
