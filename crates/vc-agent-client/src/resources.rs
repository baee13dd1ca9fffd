//! What containers use of the guest, and what they may use.

use std::time::Duration;

use agent_protocol::agent::{
    GetOOMEventRequest, OnlineCPUMemRequest, StatsContainerRequest, StatsContainerResponse,
    UpdateContainerRequest,
};
use agent_protocol::oci::LinuxResources;
use agent_protocol::virtc::UseMemoryRequest;
use protobuf::MessageField;
use ttrpc::context::Context;
use vc_types::{ByteSize, ContainerId};

use crate::client::AgentClient;
use crate::error::{Code, Error, Result};

/// What errors call it.
const USE_MEMORY: &str = "put memory to use";

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

    /// Puts processors to use that the VM got, and waits until so many more work.
    ///
    /// # Errors
    ///
    /// As every call; also when so many do not come.
    pub async fn online_vcpus(&self, more: u32) -> Result<()> {
        let request = OnlineCPUMemRequest {
            wait: true,
            nb_cpus: more,
            cpu_only: true,
            ..OnlineCPUMemRequest::default()
        };
        let answer = self.agent.online_cpu_mem(self.short(), &request);
        self.little("put processors to use", answer).await?;
        Ok(())
    }

    /// Waits, at most as long as `limit`, until the guest uses so much memory beyond that of its start,
    /// and containers may have it. An agent that cannot say so puts to use what is there.
    ///
    /// # Errors
    ///
    /// As every call; also when so much does not come.
    pub async fn use_memory(&self, more: ByteSize, limit: Duration) -> Result<()> {
        let request = UseMemoryRequest {
            more_bytes: more.bytes(),
            limit_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
            ..UseMemoryRequest::default()
        };
        let used = self.guest.use_memory(self.long(), &request);
        match self.much(USE_MEMORY, used).await {
            Err(error) if matches!(error.code(), Some(Code::NotFound | Code::Unimplemented)) => {}
            used => return used.map(drop),
        }
        let all = OnlineCPUMemRequest::default();
        let answer = self.agent.online_cpu_mem(self.short(), &all);
        self.little(USE_MEMORY, answer).await.map(drop)
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
