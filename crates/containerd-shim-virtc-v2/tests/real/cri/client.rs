//! What the node agent of Kubernetes asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    AttachRequest, Container, ContainerConfig, ContainerFilter, ContainerMetadata, ContainerStats,
    ContainerStatsFilter, ContainerStatsRequest, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ExecRequest, ExecSyncRequest, ExecSyncResponse, ImageSpec,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, ListContainerStatsRequest, ListContainersRequest, ListPodSandboxRequest,
    PodSandbox, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatus, PodSandboxStatusRequest,
    PortForwardRequest, RemoveContainerRequest, RemovePodSandboxRequest, ReopenContainerLogRequest,
    RunPodSandboxRequest, StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
    UpdateContainerResourcesRequest,
};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};
use tower::service_fn;

use super::super::{Containerd, image};

/// Asks, and gives the answer or the reason why there is none.
macro_rules! ask {
    ($client:ident, $method:ident, $request:expr) => {
        $client
            .executor
            .block_on($client.service.$method($request))
            .map(Response::into_inner)
    };
}

/// Which streams of a process are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Streams {
    All,
    /// Nothing is read from it.
    Output,
    /// Input, and one output.
    Terminal,
}

/// A client of one containerd.
pub(super) struct Client {
    executor: Runtime,
    service: RuntimeServiceClient<Channel>,
    logs: PathBuf,
    cgroup: String,
    /// What each pod was asked to be.
    pods: BTreeMap<String, PodSandboxConfig>,
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
            pods: BTreeMap::new(),
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

    #[track_caller]
    pub(super) fn run_pod(&mut self, name: &str) -> String {
        done(self.try_run_pod(name, |_| {}))
    }

    /// Runs a pod that is a little different.
    pub(super) fn try_run_pod(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut PodSandboxConfig),
    ) -> Result<String, Status> {
        let mut config = self.config(name);
        change(&mut config);
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: "virtc".to_owned(),
        };
        let id = ask!(self, run_pod_sandbox, request)?.pod_sandbox_id;
        self.pods.insert(id.clone(), config);
        Ok(id)
    }

    #[track_caller]
    pub(super) fn pod(&mut self, id: &str) -> PodSandboxStatus {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            ..PodSandboxStatusRequest::default()
        };
        done(ask!(self, pod_sandbox_status, request))
            .status
            .unwrap()
    }

    #[track_caller]
    pub(super) fn pods(&mut self) -> Vec<PodSandbox> {
        done(ask!(
            self,
            list_pod_sandbox,
            ListPodSandboxRequest::default()
        ))
        .items
    }

    #[track_caller]
    pub(super) fn stop_pod(&mut self, id: &str) {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        done(ask!(self, stop_pod_sandbox, request));
    }

    #[track_caller]
    pub(super) fn remove_pod(&mut self, id: &str) {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        done(ask!(self, remove_pod_sandbox, request));
    }

    /// Makes a container in a pod.
    #[track_caller]
    pub(super) fn create(&mut self, pod: &str, name: &str, command: &[&str]) -> String {
        done(self.try_create(pod, name, command, |_| {}))
    }

    /// Makes a container that is a little different.
    pub(super) fn try_create(
        &mut self,
        pod: &str,
        name: &str,
        command: &[&str],
        change: impl FnOnce(&mut ContainerConfig),
    ) -> Result<String, Status> {
        let mut config = ContainerConfig {
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
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources::default()),
                security_context: Some(LinuxContainerSecurityContext::default()),
            }),
            ..ContainerConfig::default()
        };
        change(&mut config);
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: self.pods.get(pod).cloned(),
        };
        Ok(ask!(self, create_container, request)?.container_id)
    }

    /// Makes a container, and starts it.
    #[track_caller]
    pub(super) fn begin(
        &mut self,
        pod: &str,
        name: &str,
        command: &[&str],
        change: impl FnOnce(&mut ContainerConfig),
    ) -> String {
        let id = done(self.try_create(pod, name, command, change));
        self.start(&id);
        id
    }

    #[track_caller]
    pub(super) fn start(&mut self, id: &str) {
        done(self.try_start(id));
    }

    pub(super) fn try_start(&mut self, id: &str) -> Result<(), Status> {
        let request = StartContainerRequest {
            container_id: id.to_owned(),
        };
        ask!(self, start_container, request).map(drop)
    }

    #[track_caller]
    pub(super) fn container(&mut self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            ..ContainerStatusRequest::default()
        };
        done(ask!(self, container_status, request)).status.unwrap()
    }

    /// The containers of a pod.
    #[track_caller]
    pub(super) fn containers(&mut self, pod: &str) -> Vec<Container> {
        let request = ListContainersRequest {
            filter: Some(ContainerFilter {
                pod_sandbox_id: pod.to_owned(),
                ..ContainerFilter::default()
            }),
        };
        done(ask!(self, list_containers, request)).containers
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
        ask!(self, exec_sync, request)
    }

    /// What a line of shell prints in a container: stdout, stderr behind it, and the code if there is one.
    #[track_caller]
    pub(super) fn say(&mut self, id: &str, line: &str) -> String {
        let said = done(self.exec(id, &["sh", "-c", line], 20));
        let mut text = String::from_utf8_lossy(&said.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&said.stderr));
        if said.exit_code != 0 {
            text.push_str(&format!("[{}]", said.exit_code));
        }
        text.trim_end().to_owned()
    }

    #[track_caller]
    pub(super) fn stats(&mut self, id: &str) -> ContainerStats {
        let request = ContainerStatsRequest {
            container_id: id.to_owned(),
        };
        done(ask!(self, container_stats, request)).stats.unwrap()
    }

    /// Those of a pod's containers.
    #[track_caller]
    pub(super) fn all_stats(&mut self, pod: &str) -> Vec<ContainerStats> {
        self.stats_of(Some(ContainerStatsFilter {
            pod_sandbox_id: pod.to_owned(),
            ..ContainerStatsFilter::default()
        }))
    }

    /// Those that a filter lets through, or all.
    #[track_caller]
    pub(super) fn stats_of(&mut self, filter: Option<ContainerStatsFilter>) -> Vec<ContainerStats> {
        let request = ListContainerStatsRequest { filter };
        done(ask!(self, list_container_stats, request)).stats
    }

    #[track_caller]
    pub(super) fn update(&mut self, id: &str, resources: LinuxContainerResources) {
        let request = UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
            ..UpdateContainerResourcesRequest::default()
        };
        done(ask!(self, update_container_resources, request));
    }

    #[track_caller]
    pub(super) fn reopen_log(&mut self, id: &str) {
        let request = ReopenContainerLogRequest {
            container_id: id.to_owned(),
        };
        done(ask!(self, reopen_container_log, request));
    }

    /// Where the streams of a process are that will be added.
    #[track_caller]
    pub(super) fn exec_url(&mut self, id: &str, command: &[&str], streams: Streams) -> String {
        let request = ExecRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            tty: streams == Streams::Terminal,
            stdin: streams != Streams::Output,
            stdout: true,
            stderr: streams != Streams::Terminal,
        };
        done(ask!(self, exec, request)).url
    }

    /// Where the streams of a container's first process are.
    #[track_caller]
    pub(super) fn attach_url(&mut self, id: &str, streams: Streams) -> String {
        let request = AttachRequest {
            container_id: id.to_owned(),
            tty: streams == Streams::Terminal,
            stdin: streams != Streams::Output,
            stdout: true,
            stderr: streams != Streams::Terminal,
        };
        done(ask!(self, attach, request)).url
    }

    /// Where a port of a pod is.
    #[track_caller]
    pub(super) fn forward_url(&mut self, pod: &str, port: i32) -> String {
        let request = PortForwardRequest {
            pod_sandbox_id: pod.to_owned(),
            port: vec![port],
        };
        done(ask!(self, port_forward, request)).url
    }

    /// Ends a container, by force after `limit` seconds.
    #[track_caller]
    pub(super) fn stop(&mut self, id: &str, limit: i64) {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: limit,
        };
        done(ask!(self, stop_container, request));
    }

    #[track_caller]
    pub(super) fn remove(&mut self, id: &str) {
        let request = RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        done(ask!(self, remove_container, request));
    }
}

#[track_caller]
fn done<T>(answer: Result<T, Status>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(status) => panic!("{status}"),
    }
}
