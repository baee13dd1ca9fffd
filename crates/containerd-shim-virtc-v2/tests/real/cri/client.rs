//! What the node agent of Kubernetes asks.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerStatsRequest, ContainerStatus,
    ContainerStatusRequest, CreateContainerRequest, ExecSyncRequest, ExecSyncResponse, ImageSpec,
    LinuxPodSandboxConfig, ListPodSandboxRequest, PodSandbox, PodSandboxConfig, PodSandboxMetadata,
    PodSandboxStatus, PodSandboxStatusRequest, RemoveContainerRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};
use tower::service_fn;

use super::super::{Containerd, image};

/// A client of one containerd.
pub(super) struct Client {
    executor: Runtime,
    service: RuntimeServiceClient<Channel>,
    logs: PathBuf,
    cgroup: String,
}

impl Client {
    pub(super) fn connect(containerd: &Containerd, logs: &Path) -> Self {
        let mut executor = tokio::runtime::Builder::new_current_thread();
        let executor = executor.enable_all().build().unwrap();
        let socket = containerd.socket();
        let connector = service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        let endpoint = Endpoint::from_static("http://containerd");
        let channel = executor.block_on(endpoint.connect_with_connector(connector));
        Self {
            executor,
            service: RuntimeServiceClient::new(channel.unwrap()),
            logs: logs.to_owned(),
            cgroup: containerd.cgroup(),
        }
    }

    fn config(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: self.logs.display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup.clone(),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }

    pub(super) fn run_pod(&mut self, name: &str) -> String {
        let request = RunPodSandboxRequest {
            config: Some(self.config(name)),
            runtime_handler: "virtc".to_owned(),
        };
        let made = self
            .executor
            .block_on(self.service.run_pod_sandbox(request));
        done(made).pod_sandbox_id
    }

    pub(super) fn pod(&mut self, id: &str) -> PodSandboxStatus {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            ..PodSandboxStatusRequest::default()
        };
        let status = self.service.pod_sandbox_status(request);
        done(self.executor.block_on(status)).status.unwrap()
    }

    pub(super) fn pods(&mut self) -> Vec<PodSandbox> {
        let request = ListPodSandboxRequest::default();
        done(
            self.executor
                .block_on(self.service.list_pod_sandbox(request)),
        )
        .items
    }

    pub(super) fn stop_pod(&mut self, id: &str) {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        done(
            self.executor
                .block_on(self.service.stop_pod_sandbox(request)),
        );
    }

    pub(super) fn remove_pod(&mut self, id: &str) {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        done(
            self.executor
                .block_on(self.service.remove_pod_sandbox(request)),
        );
    }

    /// Makes a container in a pod, which is called `web`.
    pub(super) fn create(&mut self, pod: &str, name: &str, command: &[&str]) -> String {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(ContainerConfig {
                metadata: Some(ContainerMetadata {
                    name: name.to_owned(),
                    attempt: 0,
                }),
                image: Some(ImageSpec {
                    image: image::NAME.to_owned(),
                    ..ImageSpec::default()
                }),
                command: command.iter().map(|&word| word.to_owned()).collect(),
                log_path: format!("{name}.log"),
                ..ContainerConfig::default()
            }),
            sandbox_config: Some(self.config("web")),
        };
        let made = self
            .executor
            .block_on(self.service.create_container(request));
        done(made).container_id
    }

    pub(super) fn start(&mut self, id: &str) {
        let request = StartContainerRequest {
            container_id: id.to_owned(),
        };
        done(
            self.executor
                .block_on(self.service.start_container(request)),
        );
    }

    pub(super) fn container(&mut self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            ..ContainerStatusRequest::default()
        };
        let status = self.service.container_status(request);
        done(self.executor.block_on(status)).status.unwrap()
    }

    /// `limit` is in seconds.
    pub(super) fn exec(
        &mut self,
        id: &str,
        command: &[&str],
        limit: i64,
    ) -> Result<ExecSyncResponse, Status> {
        let request = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout: limit,
        };
        let said = self.executor.block_on(self.service.exec_sync(request));
        said.map(Response::into_inner)
    }

    /// Bytes of memory that a container uses.
    pub(super) fn used(&mut self, id: &str) -> u64 {
        let request = ContainerStatsRequest {
            container_id: id.to_owned(),
        };
        let stats = done(
            self.executor
                .block_on(self.service.container_stats(request)),
        );
        let memory = stats.stats.unwrap().memory.unwrap();
        memory.working_set_bytes.unwrap().value
    }

    /// Ends a container, by force after `limit` seconds.
    pub(super) fn stop(&mut self, id: &str, limit: i64) {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: limit,
        };
        done(self.executor.block_on(self.service.stop_container(request)));
    }

    pub(super) fn remove(&mut self, id: &str) {
        let request = RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        done(
            self.executor
                .block_on(self.service.remove_container(request)),
        );
    }
}

#[track_caller]
fn done<T>(answer: Result<Response<T>, Status>) -> T {
    match answer {
        Ok(response) => response.into_inner(),
        Err(status) => panic!("{status}"),
    }
}
