//! containerd's service of sandboxes, beside that of tasks: a machine first, and tasks in it then.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest,
    PlatformResponse, SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest,
    SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest,
    StartSandboxResponse, StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest,
    WaitSandboxResponse,
};
use containerd_shim_protos::sandbox_async::Sandbox as SandboxCalls;
use containerd_shim_protos::ttrpc::Result as Answer;
use containerd_shim_protos::ttrpc::asynchronous::TtrpcContext;
use containerd_shim_protos::types::platform::Platform;
use vc_types::{EndReason, SandboxId, SandboxState};
use virtcontainers::{HostCgroup, NetworkConfig, SandboxConfig, SandboxHandle, demand_of_pod};

use super::{pid, to_its_end};
use crate::error::{Error, Result};
use crate::options::is_options;
use crate::pod::Pod;
use crate::pod_config::pod_cgroup;
use crate::process::Exit;
use crate::publisher::timestamp;
use crate::sandbox::network_of;

/// The words of Kubernetes' runtime interface, which containerd expects.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// The service of one pod.
#[derive(Clone, Debug)]
pub(super) struct SandboxService {
    pub(super) pod: Arc<Pod>,
}

impl SandboxService {
    /// Makes the machine, without a container.
    async fn start(&self, id: &str) -> Result<StartSandboxResponse> {
        let pod = &self.pod;
        let asked = pod.served.find(id)?;
        let mut slot = pod.sandbox.lock().await;
        if slot.is_some() || pod.served.life().ended.is_some() {
            return Err(Error::Precondition {
                what: format!("sandbox {id}"),
                state: "started",
                wanted: "started",
            });
        }
        let annotations = asked.annotations.clone().into_iter().collect();
        let bundle = Path::new(&asked.bundle_path);
        // Kubernetes' own description of a pod comes at the same place, and is nothing of these.
        let options = asked.options.as_ref().filter(|any| is_options(any));
        let demand = demand_of_pod(&annotations);
        let runtime = pod.runtime_with(options, bundle, annotations)?;
        let config = SandboxConfig::empty(SandboxId::new(id)?, runtime.config(), false)?;
        let mut config = config.sized_for(demand)?;
        let pod_cgroup = asked
            .options
            .as_ref()
            .map(pod_cgroup)
            .transpose()?
            .flatten();
        config.cgroup = HostCgroup::chosen(runtime.config().runtime.sandbox_cgroup, pod_cgroup);
        config.network = match network_of(&asked) {
            Some(path) => NetworkConfig::Namespace {
                path,
                loopback_relay: true,
            },
            None => pod.network.clone(),
        };
        config.annotations = asked.annotations.into_iter().collect();
        let sandbox = runtime.create_sandbox(config).await?;
        let handle = sandbox.handle().clone();
        *slot = Some(sandbox);
        pod.set_handle(Some(handle.clone()));
        pod.served.started();
        tokio::spawn(super::create::tell_of_memory(
            Arc::clone(pod),
            handle.clone(),
        ));
        tokio::spawn(watch(Arc::clone(pod), handle));
        Ok(StartSandboxResponse {
            pid: pid(),
            created_at: pod.served.life().started.map(timestamp).into(),
            ..StartSandboxResponse::default()
        })
    }

    /// Ends the machine, with what runs in it. One that has ended is no error.
    async fn stop(&self, id: &str) -> Result<()> {
        self.pod.served.find(id)?;
        if let Some(sandbox) = &*self.pod.sandbox.lock().await {
            sandbox.stop().await?;
        }
        Ok(())
    }

    /// Removes the sandbox, and lets this process end.
    async fn shut_down(&self, id: &str) -> Result<()> {
        self.pod.served.find(id)?;
        self.pod.set_handle(None);
        if let Some(sandbox) = self.pod.sandbox.lock().await.take() {
            sandbox.delete().await?;
        }
        self.pod.served.ended(Exit::lost());
        self.pod.shut_down.notify_one();
        Ok(())
    }

    fn status(&self, id: &str) -> Result<SandboxStatusResponse> {
        self.pod.served.find(id)?;
        let life = self.pod.served.life();
        let ready = life.started.is_some() && life.ended.is_none();
        Ok(SandboxStatusResponse {
            sandbox_id: id.to_owned(),
            pid: pid(),
            state: if ready { READY } else { NOT_READY }.to_owned(),
            created_at: life.started.map(timestamp).into(),
            exited_at: life.ended.map(|exit| timestamp(exit.at)).into(),
            ..SandboxStatusResponse::default()
        })
    }

    /// Refuses where no machine runs.
    fn ping(&self, id: &str) -> Result<()> {
        self.pod.served.find(id)?;
        match self.pod.handle()?.status()?.state {
            SandboxState::Ready | SandboxState::Running | SandboxState::Paused => Ok(()),
            SandboxState::Stopped => Err(Error::Precondition {
                what: format!("sandbox {id}"),
                state: "not running",
                wanted: "reached",
            }),
        }
    }
}

/// Notes the end of the machine: one that nobody asked for is no success.
async fn watch(pod: Arc<Pod>, sandbox: SandboxHandle) {
    let exit = match sandbox.monitor().await {
        Ok(EndReason::Requested) => Exit::now(0),
        Ok(reason) => {
            tracing::warn!(%reason, "the machine of the sandbox has ended");
            Exit::lost()
        }
        Err(error) => {
            tracing::warn!(%error, "the machine of the sandbox is lost");
            Exit::lost()
        }
    };
    pod.served.ended(exit);
}

#[async_trait]
impl SandboxCalls for SandboxService {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> Answer<CreateSandboxResponse> {
        let id = SandboxId::new(&request.sandbox_id).map_err(Error::from)?;
        if self.pod.has_tasks() {
            let what = format!("a task that sandbox {id} is for");
            return Err(Error::Exists { what }.into());
        }
        self.pod.served.ask(request)?;
        Ok(CreateSandboxResponse::new())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> Answer<StartSandboxResponse> {
        let service = self.clone();
        to_its_end(async move { service.start(&request.sandbox_id).await }).await
    }

    async fn platform(&self, _: &TtrpcContext, _: PlatformRequest) -> Answer<PlatformResponse> {
        Ok(PlatformResponse {
            platform: MessageField::some(Platform {
                os: "linux".to_owned(),
                architecture: "amd64".to_owned(),
                ..Platform::default()
            }),
            ..PlatformResponse::default()
        })
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: StopSandboxRequest,
    ) -> Answer<StopSandboxResponse> {
        let service = self.clone();
        to_its_end(async move { service.stop(&request.sandbox_id).await }).await?;
        Ok(StopSandboxResponse::new())
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: WaitSandboxRequest,
    ) -> Answer<WaitSandboxResponse> {
        self.pod.served.find(&request.sandbox_id)?;
        let exit = self.pod.served.wait().await;
        Ok(WaitSandboxResponse {
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..WaitSandboxResponse::default()
        })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> Answer<SandboxStatusResponse> {
        Ok(self.status(&request.sandbox_id)?)
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, request: PingRequest) -> Answer<PingResponse> {
        self.ping(&request.sandbox_id)?;
        Ok(PingResponse::new())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> Answer<ShutdownSandboxResponse> {
        let service = self.clone();
        to_its_end(async move { service.shut_down(&request.sandbox_id).await }).await?;
        Ok(ShutdownSandboxResponse::new())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        _: SandboxMetricsRequest,
    ) -> Answer<SandboxMetricsResponse> {
        Err(Error::Unsupported("measuring a sandbox apart from its tasks".into()).into())
    }
}
