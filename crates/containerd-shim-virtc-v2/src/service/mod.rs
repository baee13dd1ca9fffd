//! The task service of containerd: each call in a file of its own, where it is more than a line.

mod create;
mod delete;
mod exec;
mod guest_process;
mod kill;
mod made;
mod sandbox;
mod start;
mod state;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::ttrpc::Result;
use containerd_shim_protos::ttrpc::asynchronous::{Service, TtrpcContext};
use containerd_shim_protos::{sandbox_async, shim_async};

use crate::error::Error;
use crate::pod::{Pod, Task};

/// The names under which the one service is known; the messages are the same.
const NAMES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// The service of one pod.
#[derive(Clone, Debug)]
pub(crate) struct TaskService {
    pub(crate) pod: Arc<Pod>,
}

/// The service under all its names.
pub(crate) fn services(pod: &Arc<Pod>) -> HashMap<String, Service> {
    let mut all = HashMap::new();
    for name in NAMES {
        let service = TaskService {
            pod: Arc::clone(pod),
        };
        let made = shim_async::create_task(Arc::new(service)).into_values();
        all.extend(made.map(|service| (name.to_owned(), service)));
    }
    let service = sandbox::SandboxService {
        pod: Arc::clone(pod),
    };
    all.extend(sandbox_async::create_sandbox(Arc::new(service)));
    all
}

/// The number of this process, as messages have it.
fn pid() -> u32 {
    std::process::id()
}

/// The number of what stands for a task on the host, as messages have it.
fn pid_of(task: &Task) -> u32 {
    task.pid().unsigned_abs()
}

/// Does what must not be left half done when the connection ends over which it was asked for.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = crate::error::Result<T>> + Send + 'static,
) -> Result<T> {
    let done = tokio::spawn(work).await;
    let done = done.map_err(|error| Error::System {
        attempt: "do what was asked for".into(),
        source: std::io::Error::other(error),
    })?;
    Ok(done?)
}

#[async_trait]
impl shim_async::Task for TaskService {
    async fn create(
        &self,
        context: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> Result<CreateTaskResponse> {
        let limit = u64::try_from(context.timeout_nano)
            .ok()
            .filter(|&limit| limit > 0);
        let what = format!("the creation of task {}", request.id);
        // In a box, what the making takes goes with it.
        let created = Box::pin(self.create_task(request));
        let pid = match limit.map(Duration::from_nanos) {
            None => created.await?,
            Some(limit) => tokio::time::timeout(limit, created)
                .await
                .map_err(|_| Error::TimedOut { what })??,
        };
        Ok(CreateTaskResponse {
            pid,
            ..CreateTaskResponse::default()
        })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Result<StartResponse> {
        let service = self.clone();
        let pid = to_its_end(async move {
            match request.exec_id.as_str() {
                "" => service.start_task(&request.id).await,
                exec => service.start_exec(&request.id, exec).await,
            }
        })
        .await?;
        Ok(StartResponse {
            pid,
            ..StartResponse::default()
        })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Result<DeleteResponse> {
        let service = self.clone();
        to_its_end(async move {
            match request.exec_id.as_str() {
                "" => service.delete_task(&request.id).await,
                exec => service.delete_exec(&request.id, exec).await,
            }
        })
        .await
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Result<Empty> {
        self.add_exec(request)?;
        Ok(Empty::new())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Result<Empty> {
        self.kill_process(&request).await?;
        Ok(Empty::new())
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Result<StateResponse> {
        Ok(self.state_of(&request)?)
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Result<WaitResponse> {
        Ok(self.wait_for(&request).await?)
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Result<PidsResponse> {
        Ok(self.pids_of(&request.id).await?)
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Result<StatsResponse> {
        Ok(self.stats_of(&request.id).await?)
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Result<ConnectResponse> {
        // A shim whose task is not made yet is one all the same.
        let task = self.pod.task(&request.id);
        let task_pid = task.map_or(0, |task| pid_of(&task));
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ConnectResponse::default()
        })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Result<Empty> {
        let service = self.clone();
        to_its_end(async move { service.pause_task(&request.id).await }).await?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Result<Empty> {
        let service = self.clone();
        to_its_end(async move { service.resume_task(&request.id).await }).await?;
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> Result<Empty> {
        Err(Error::Unsupported("a checkpoint of a container in a machine".into()).into())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Result<Empty> {
        let process = self.pod.task(&request.id)?.process(&request.exec_id)?;
        let size = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
        process
            .resize(size(request.height), size(request.width))
            .await?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Result<Empty> {
        let process = self.pod.task(&request.id)?.process(&request.exec_id)?;
        if request.stdin {
            process.close_stdin();
        }
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> Result<Empty> {
        self.update_task(&request).await?;
        Ok(Empty::new())
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> Result<Empty> {
        // One of a pod goes, the others stay; and so does a sandbox that is one without tasks.
        if request.now || !(self.pod.has_tasks() || self.pod.served.is_there()) {
            self.pod.shut_down.notify_one();
        }
        Ok(Empty::new())
    }
}
