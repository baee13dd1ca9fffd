//! The making of a sandbox and of its containers.

use agent_protocol::agent::{
    CopyFileRequest, CreateContainerRequest, CreateSandboxRequest, GuestDetailsRequest, Storage,
};
use agent_protocol::virtc::SyscallFilter;
use agent_protocol::{oci, virtc};
use protobuf::MessageField;
use vc_types::{ContainerId, guest};

use crate::client::AgentClient;
use crate::error::{Error, Result};

/// Bytes of files that come with a container. More of them are all written before, each with a call of its own.
const FILES_BYTES_MAX: usize = 1 << 20;

/// What a container is made of.
#[derive(Debug, Default)]
pub struct NewContainer {
    /// Its specification, in the guest's words.
    pub spec: oci::Spec,
    /// What is mounted for it.
    pub storages: Vec<Storage>,
    /// Whether it joins the sandbox's pid namespace, which [`AgentClient::create_sandbox`] was asked for.
    pub shared_pids: bool,
    /// What the specification says of system calls, made already. Where it is missing, and where the agent takes none,
    /// the guest makes it by the specification.
    pub filter: Option<SyscallFilter>,
    /// Small files that it finds in the guest (mode 0644), by their paths there.
    pub files: Vec<(String, Vec<u8>)>,
}

impl AgentClient {
    /// Prepares the sandbox: its name and the storages that all its containers use.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn create_sandbox(&self, request: CreateSandboxRequest) -> Result<()> {
        let call = self.agent.create_sandbox(self.long(), &request);
        self.much(PREPARE_SANDBOX, call).await?;
        Ok(())
    }

    /// As [`Self::create_sandbox`]; and it is `host_realtime_ns` nanoseconds since 1970 from now on. For an agent that has
    /// the feature [`guest::TIMED_SANDBOX`].
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn create_timed_sandbox(
        &self,
        request: CreateSandboxRequest,
        host_realtime_ns: u64,
    ) -> Result<()> {
        let request = virtc::CreateSandboxRequest {
            sandbox: MessageField::some(request),
            host_realtime_ns,
            ..virtc::CreateSandboxRequest::default()
        };
        let call = self.guest.create_sandbox(self.long(), &request);
        self.much(PREPARE_SANDBOX, call).await?;
        Ok(())
    }

    /// Makes a container, whose process waits for [`Self::start_container`].
    ///
    /// # Errors
    ///
    /// As every call, and [`Error::BadRequest`] for a filter of which the specification says nothing.
    pub async fn create_container(&self, container: &ContainerId, new: NewContainer) -> Result<()> {
        let NewContainer {
            spec,
            storages,
            shared_pids,
            filter,
            mut files,
        } = new;
        let mut request = CreateContainerRequest {
            container_id: container.to_string(),
            exec_id: container.to_string(),
            OCI: MessageField::some(spec),
            storages,
            sandbox_pidns: shared_pids,
            ..CreateContainerRequest::default()
        };
        if files.iter().map(|(_, data)| data.len()).sum::<usize>() > FILES_BYTES_MAX {
            self.write_files(std::mem::take(&mut files)).await?;
        }
        if filter.is_some() || !files.is_empty() {
            match self.create_whole(request, filter, files).await? {
                None => return Ok(()),
                Some(left) => request = left,
            }
        }
        self.much(
            CREATE_CONTAINER,
            self.agent.create_container(self.long(), &request),
        )
        .await?;
        Ok(())
    }

    /// Makes a container with its filter and its files. Where the agent does not take them, the files are written, and
    /// what is left to ask for is given back.
    async fn create_whole(
        &self,
        mut container: CreateContainerRequest,
        filter: Option<SyscallFilter>,
        files: Vec<(String, Vec<u8>)>,
    ) -> Result<Option<CreateContainerRequest>> {
        let mut seccomp = MessageField::none();
        if filter.is_some() {
            seccomp = take_seccomp(&mut container);
            if seccomp.is_none() {
                return Err(Error::BadRequest {
                    call: CREATE_CONTAINER,
                    reason: "its specification says nothing of the filter of system calls".into(),
                });
            }
        }
        let files = files.into_iter().map(|(path, data)| file(path, data));
        let mut whole = virtc::CreateContainerRequest {
            container: MessageField::some(container),
            filter: filter.into(),
            files: files.collect(),
            ..virtc::CreateContainerRequest::default()
        };
        let made = self.guest.create_container(self.long(), &whole);
        match self.much(CREATE_CONTAINER, made).await {
            // One that has not the call, and one that has it and knows less of it, say different things; and a
            // container may be refused by any.
            Err(error) if error.code().is_some() => {
                if self.takes_whole_containers().await {
                    return Err(error);
                }
            }
            made => return made.map(|_| None),
        }
        for file in &whole.files {
            self.write(file).await?;
        }
        let mut container = whole.container.take().unwrap_or_default();
        let linux = container.OCI.as_mut().and_then(|spec| spec.Linux.as_mut());
        if let (Some(linux), true) = (linux, seccomp.is_some()) {
            linux.Seccomp = seccomp;
        }
        Ok(Some(container))
    }

    async fn write_files(&self, files: Vec<(String, Vec<u8>)>) -> Result<()> {
        for (path, data) in files {
            self.write(&file(path, data)).await?;
        }
        Ok(())
    }

    async fn write(&self, file: &CopyFileRequest) -> Result<()> {
        let call = self.agent.copy_file(self.short(), file);
        self.little("write a file in the guest", call).await?;
        Ok(())
    }

    /// Whether the agent says that it takes filters and files. One that says nothing is not asked for anything else.
    async fn takes_whole_containers(&self) -> bool {
        let request = GuestDetailsRequest::new();
        let details = self.agent.get_guest_details(self.short(), &request);
        match self.little("ask for the agent's features", details).await {
            Ok(details) => {
                let mut features = details.agent_details.extra_features.iter();
                features.any(|feature| feature == guest::WHOLE_CONTAINERS)
            }
            Err(_) => true,
        }
    }
}

const PREPARE_SANDBOX: &str = "prepare the sandbox in the guest";
const CREATE_CONTAINER: &str = "create the container";

/// A whole file, with its directories (mode 0755).
fn file(path: String, data: Vec<u8>) -> CopyFileRequest {
    CopyFileRequest {
        path,
        file_size: i64::try_from(data.len()).unwrap_or(i64::MAX),
        file_mode: 0o100_644,
        dir_mode: 0o755,
        data,
        ..CopyFileRequest::default()
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

    /// What an agent is asked to make: the filter, what the specification says of it, and the files that were written
    /// before.
    type Asked = (
        Option<SyscallFilter>,
        MessageField<oci::LinuxSeccomp>,
        Vec<String>,
    );

    /// Keeps what it is asked to make, and refuses that with a code, if it has one.
    #[derive(Default)]
    struct Agent {
        features: Vec<String>,
        refusal: Option<ttrpc::Code>,
        asked: Mutex<Vec<Asked>>,
        written: Mutex<Vec<String>>,
    }

    impl Agent {
        fn make(
            &self,
            filter: Option<SyscallFilter>,
            mut request: CreateContainerRequest,
        ) -> ttrpc::Result<Empty> {
            let seccomp = take_seccomp(&mut request);
            let written = self.written.lock().unwrap().clone();
            self.asked.lock().unwrap().push((filter, seccomp, written));
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

        async fn copy_file(&self, _: &TtrpcContext, file: CopyFileRequest) -> ttrpc::Result<Empty> {
            self.written
                .lock()
                .unwrap()
                .push(format!("{} by itself", file.path));
            Ok(Empty::new())
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
            let files = request.files.into_iter().map(|file| file.path);
            self.written.lock().unwrap().extend(files);
            self.make(filter, request.container.unwrap_or_default())
        }
    }

    /// What an agent that takes filters or does not was asked for by one call, and what became of that.
    async fn ask(
        takes_all: bool,
        refusal: Option<ttrpc::Code>,
        filter: Option<SyscallFilter>,
        seccomp: MessageField<oci::LinuxSeccomp>,
        files: Vec<(String, Vec<u8>)>,
    ) -> (Vec<Asked>, Result<()>) {
        let feature = takes_all.then(|| guest::WHOLE_CONTAINERS.to_owned());
        let agent = Arc::new(Agent {
            features: feature.into_iter().collect(),
            refusal,
            ..Agent::default()
        });
        let mut services = create_guest_service(Arc::clone(&agent) as _);
        if !takes_all {
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
            .create_container(
                &container,
                NewContainer {
                    spec,
                    filter,
                    files,
                    ..NewContainer::default()
                },
            )
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

    fn hosts(bytes: usize) -> Vec<(String, Vec<u8>)> {
        vec![("/run/hosts".into(), vec![b'a'; bytes])]
    }

    #[tokio::test]
    async fn an_agent_gets_the_filter_or_what_the_specification_says_of_it() {
        let (asked, made) = ask(true, None, Some(filter()), words(), Vec::new()).await;
        made.unwrap();
        assert_eq!(asked, [(Some(filter()), MessageField::none(), Vec::new())]);
        for (takes_all, filter) in [(false, Some(filter())), (true, None)] {
            let (asked, made) = ask(takes_all, None, filter, words(), Vec::new()).await;
            made.unwrap();
            assert_eq!(asked, [(None, words(), Vec::new())]);
        }
    }

    #[tokio::test]
    async fn files_come_with_the_container_or_before_it() {
        let own_call = "/run/hosts by itself";
        for (takes_all, bytes, written) in [
            (true, 3, "/run/hosts"),
            (false, 3, own_call),
            (true, FILES_BYTES_MAX + 1, own_call),
        ] {
            let (asked, made) = ask(takes_all, None, None, words(), hosts(bytes)).await;
            made.unwrap();
            assert_eq!(asked, [(None, words(), vec![written.to_owned()])]);
        }
        let (asked, made) = ask(false, None, Some(filter()), words(), hosts(3)).await;
        made.unwrap();
        assert_eq!(asked, [(None, words(), vec![own_call.to_owned()])]);
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_no_container_is_made_without_its_filter() {
        for code in [ttrpc::Code::UNIMPLEMENTED, ttrpc::Code::INTERNAL] {
            let (asked, made) = ask(true, Some(code), Some(filter()), words(), hosts(3)).await;
            made.unwrap_err();
            assert_eq!(asked.len(), 1, "{code:?}");
        }
        let none = MessageField::none();
        let (asked, made) = ask(false, None, Some(filter()), none, hosts(3)).await;
        assert!(matches!(made, Err(Error::BadRequest { .. })));
        assert!(asked.is_empty());
    }
}
