//! The making of a container.

use agent_protocol::agent::{CreateContainerRequest, Storage};
use agent_protocol::virtc::SyscallFilter;
use agent_protocol::{oci, virtc};
use protobuf::MessageField;
use vc_types::ContainerId;

use crate::client::AgentClient;
use crate::error::{Code, Result};

impl AgentClient {
    /// Makes a container, whose process waits for [`Self::start_container`]. With `shared_pids` it
    /// joins the sandbox's pid namespace, which [`Self::create_sandbox`] was asked for.
    ///
    /// `filter` is what the specification says of system calls, made already. Where it is missing, and where
    /// the agent takes none, the guest makes it by the specification.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn create_container(
        &self,
        container: &ContainerId,
        spec: oci::Spec,
        storages: Vec<Storage>,
        shared_pids: bool,
        filter: Option<SyscallFilter>,
    ) -> Result<()> {
        const CALL: &str = "create the container";
        let mut request = CreateContainerRequest {
            container_id: container.to_string(),
            exec_id: container.to_string(),
            OCI: MessageField::some(spec),
            storages,
            sandbox_pidns: shared_pids,
            ..CreateContainerRequest::default()
        };
        if filter.is_some() {
            let seccomp = take_seccomp(&mut request);
            let mut filtered = virtc::CreateContainerRequest {
                container: MessageField::some(request),
                filter: filter.into(),
                ..virtc::CreateContainerRequest::default()
            };
            let made = self.guest.create_container(self.long(), &filtered);
            match self.much(CALL, made).await {
                Err(error) if error.code() == Some(Code::Unimplemented) => {}
                made => return made.map(drop),
            }
            request = filtered.container.take().unwrap_or_default();
            if let Some(linux) = request.OCI.as_mut().and_then(|spec| spec.Linux.as_mut()) {
                linux.Seccomp = seccomp;
            }
        }
        self.much(CALL, self.agent.create_container(self.long(), &request))
            .await?;
        Ok(())
    }
}

/// Takes what a container's specification says of system calls out of it.
fn take_seccomp(request: &mut CreateContainerRequest) -> MessageField<oci::LinuxSeccomp> {
    let linux = request.OCI.as_mut().and_then(|spec| spec.Linux.as_mut());
    linux
        .map(|linux| std::mem::take(&mut linux.Seccomp))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use agent_protocol::Empty;
    use agent_protocol::agent_ttrpc::{AgentService, create_agent_service};
    use agent_protocol::virtc_ttrpc::{GuestService, create_guest_service};
    use async_trait::async_trait;
    use tokio::net::UnixStream;
    use ttrpc::r#async::{Server, TtrpcContext};
    use ttrpc::asynchronous::transport::Listener;

    use super::*;
    use crate::client::CallLimits;

    /// Keeps what it is asked to make: the filter, and whether the specification says what it is to be.
    #[derive(Default)]
    struct Agent(Mutex<Vec<(Option<SyscallFilter>, bool)>>);

    impl Agent {
        fn note(&self, filter: Option<SyscallFilter>, request: &CreateContainerRequest) {
            let says = request.OCI.Linux.Seccomp.is_some();
            self.0.lock().unwrap().push((filter, says));
        }
    }

    #[async_trait]
    impl AgentService for Agent {
        async fn create_container(
            &self,
            _: &TtrpcContext,
            request: CreateContainerRequest,
        ) -> ttrpc::Result<Empty> {
            self.note(None, &request);
            Ok(Empty::new())
        }
    }

    #[async_trait]
    impl GuestService for Agent {
        async fn create_container(
            &self,
            _: &TtrpcContext,
            request: virtc::CreateContainerRequest,
        ) -> ttrpc::Result<Empty> {
            let filter = request.filter.into_option();
            self.note(filter, &request.container);
            Ok(Empty::new())
        }
    }

    /// What an agent, that takes filters or does not, was asked for by one call.
    async fn asked(
        takes_filters: bool,
        filter: Option<SyscallFilter>,
    ) -> Vec<(Option<SyscallFilter>, bool)> {
        let agent = Arc::new(Agent::default());
        let mut services = create_guest_service(Arc::clone(&agent) as _);
        if !takes_filters {
            for service in services.values_mut() {
                service.methods.remove("CreateContainer").unwrap();
            }
        }
        let (ours, its) = UnixStream::pair().unwrap();
        let incoming = futures_util::stream::iter([Ok(its)]);
        let mut server = Server::new()
            .add_listener(Listener::new(incoming))
            .register_service(create_agent_service(Arc::clone(&agent) as _))
            .register_service(services);
        server.start().await.unwrap();
        let limit = Duration::from_secs(10);
        let limits = CallLimits {
            call: limit,
            create: limit,
        };
        let spec = oci::Spec {
            Linux: MessageField::some(oci::Linux {
                Seccomp: MessageField::some(oci::LinuxSeccomp::default()),
                ..oci::Linux::default()
            }),
            ..oci::Spec::default()
        };
        let container = ContainerId::new("c1").unwrap();
        AgentClient::over(ours, limits)
            .create_container(&container, spec, Vec::new(), false, filter)
            .await
            .unwrap();
        std::mem::take(&mut *agent.0.lock().unwrap())
    }

    #[tokio::test]
    async fn an_agent_gets_the_filter_or_what_the_specification_says_of_it() {
        let filter = SyscallFilter {
            flags: 1,
            program: vec![6; 8],
            ..SyscallFilter::default()
        };
        let given = Some(filter.clone());
        assert_eq!(asked(true, given.clone()).await, [(given.clone(), false)]);
        assert_eq!(asked(false, given).await, [(None, true)]);
        assert_eq!(asked(true, None).await, [(None, true)]);
    }
}
