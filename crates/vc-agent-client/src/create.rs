//! The making of a container.

use agent_protocol::agent::{CreateContainerRequest, GuestDetailsRequest, Storage};
use agent_protocol::virtc::SyscallFilter;
use agent_protocol::{oci, virtc};
use protobuf::MessageField;
use vc_types::{ContainerId, guest};

use crate::client::AgentClient;
use crate::error::{Code, Error, Result};

impl AgentClient {
    /// Makes a container, whose process waits for [`Self::start_container`]. With `shared_pids` it
    /// joins the sandbox's pid namespace, which [`Self::create_sandbox`] was asked for.
    ///
    /// `filter` is what the specification says of system calls, made already. Where it is missing, and where
    /// the agent takes none, the guest makes it by the specification.
    ///
    /// # Errors
    ///
    /// As every call, and [`Error::BadRequest`] for a filter of which the specification says nothing.
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
            if seccomp.is_none() {
                return Err(Error::BadRequest {
                    call: CALL,
                    reason: "its specification says nothing of the filter of system calls".into(),
                });
            }
            let mut filtered = virtc::CreateContainerRequest {
                container: MessageField::some(request),
                filter: filter.into(),
                ..virtc::CreateContainerRequest::default()
            };
            let made = self.guest.create_container(self.long(), &filtered);
            match self.much(CALL, made).await {
                // The container may ask for what no agent has, too.
                Err(error) if error.code() == Some(Code::Unimplemented) => {
                    if self.takes_filters().await {
                        return Err(error);
                    }
                }
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

    /// Whether the agent says that it takes filters. One that says nothing is not asked for anything else.
    async fn takes_filters(&self) -> bool {
        let request = GuestDetailsRequest::new();
        let details = self.agent.get_guest_details(self.short(), &request);
        match self.little("ask for the agent's features", details).await {
            Ok(details) => {
                let mut features = details.agent_details.extra_features.iter();
                features.any(|feature| feature == guest::SYSCALL_FILTERS)
            }
            Err(_) => true,
        }
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
    use agent_protocol::agent::{AgentDetails, GuestDetailsResponse};
    use agent_protocol::agent_ttrpc::{AgentService, create_agent_service};
    use agent_protocol::virtc_ttrpc::{GuestService, create_guest_service};
    use async_trait::async_trait;
    use tokio::net::UnixStream;
    use ttrpc::r#async::{Server, TtrpcContext};
    use ttrpc::asynchronous::transport::Listener;

    use super::*;
    use crate::client::CallLimits;

    /// What an agent is asked to make: the filter, and what the specification says of it.
    type Asked = (Option<SyscallFilter>, MessageField<oci::LinuxSeccomp>);

    /// Keeps what it is asked to make, and refuses that with a code, if it has one.
    #[derive(Default)]
    struct Agent {
        features: Vec<String>,
        refusal: Option<ttrpc::Code>,
        asked: Mutex<Vec<Asked>>,
    }

    impl Agent {
        fn make(
            &self,
            filter: Option<SyscallFilter>,
            mut request: CreateContainerRequest,
        ) -> ttrpc::Result<Empty> {
            let seccomp = take_seccomp(&mut request);
            self.asked.lock().unwrap().push((filter, seccomp));
            match self.refusal {
                None => Ok(Empty::new()),
                Some(code) => Err(ttrpc::Error::RpcStatus(ttrpc::get_status(code, "no"))),
            }
        }
    }

    #[async_trait]
    impl AgentService for Agent {
        async fn create_container(
            &self,
            _: &TtrpcContext,
            request: CreateContainerRequest,
        ) -> ttrpc::Result<Empty> {
            self.make(None, request)
        }

        async fn get_guest_details(
            &self,
            _: &TtrpcContext,
            _: GuestDetailsRequest,
        ) -> ttrpc::Result<GuestDetailsResponse> {
            Ok(GuestDetailsResponse {
                agent_details: MessageField::some(AgentDetails {
                    extra_features: self.features.clone(),
                    ..AgentDetails::default()
                }),
                ..GuestDetailsResponse::default()
            })
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
            self.make(filter, request.container.unwrap_or_default())
        }
    }

    /// What an agent that takes filters or does not was asked for by one call, and what became of that.
    async fn ask(
        takes_filters: bool,
        refusal: Option<ttrpc::Code>,
        filter: Option<SyscallFilter>,
        seccomp: MessageField<oci::LinuxSeccomp>,
    ) -> (Vec<Asked>, Result<()>) {
        let feature = takes_filters.then(|| guest::SYSCALL_FILTERS.to_owned());
        let agent = Arc::new(Agent {
            features: feature.into_iter().collect(),
            refusal,
            asked: Mutex::default(),
        });
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
                Seccomp: seccomp,
                ..oci::Linux::default()
            }),
            ..oci::Spec::default()
        };
        let container = ContainerId::new("c1").unwrap();
        let made = AgentClient::over(ours, limits)
            .create_container(&container, spec, Vec::new(), false, filter)
            .await;
        (std::mem::take(&mut *agent.asked.lock().unwrap()), made)
    }

    fn filter() -> SyscallFilter {
        SyscallFilter {
            flags: 1,
            program: vec![6; 8],
            ..SyscallFilter::default()
        }
    }

    fn words() -> MessageField<oci::LinuxSeccomp> {
        MessageField::some(oci::LinuxSeccomp {
            DefaultAction: "SCMP_ACT_ALLOW".into(),
            ..oci::LinuxSeccomp::default()
        })
    }

    #[tokio::test]
    async fn an_agent_gets_the_filter_or_what_the_specification_says_of_it() {
        let (asked, made) = ask(true, None, Some(filter()), words()).await;
        made.unwrap();
        assert_eq!(asked, [(Some(filter()), MessageField::none())]);
        for (takes_filters, filter) in [(false, Some(filter())), (true, None)] {
            let (asked, made) = ask(takes_filters, None, filter, words()).await;
            made.unwrap();
            assert_eq!(asked, [(None, words())]);
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_no_container_is_made_without_its_filter() {
        for code in [ttrpc::Code::UNIMPLEMENTED, ttrpc::Code::INTERNAL] {
            let (asked, made) = ask(true, Some(code), Some(filter()), words()).await;
            made.unwrap_err();
            assert_eq!(asked.len(), 1, "{code:?}");
        }
        let (asked, made) = ask(false, None, Some(filter()), MessageField::none()).await;
        assert!(matches!(made, Err(Error::BadRequest { .. })));
        assert!(asked.is_empty());
    }
}
