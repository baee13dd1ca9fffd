use std::sync::Arc;

use containerd_shim_protos::api::{ExecProcessRequest, UpdateTaskRequest};
use containerd_shim_protos::events::task::TaskExecAdded;
use oci_spec::runtime::{BoxBuilder, LinuxResources, Process};
use vc_types::ExecId;

use super::TaskService;
use crate::error::{Error, Result};
use crate::io::Stdio;
use crate::pod::Exec;
use crate::process::{Phase, TaskProcess};

impl TaskService {
    /// Notes a process that is to be added; it is made when it is started.
    pub(super) fn add_exec(&self, request: ExecProcessRequest) -> Result<()> {
        let task = self.pod.task(&request.id)?;
        let id = ExecId::new(&request.exec_id)?;
        if let phase @ Phase::Stopped(_) = task.first.phase() {
            task.first.expect(Phase::Running, phase.name())?;
        }
        let spec = request.spec.into_option().unwrap_or_default();
        let mut spec: Process = serde_json::from_slice(&spec.value)
            .map_err(|error| Error::Invalid(format!("the description of process {id}: {error}")))?;
        spec.set_terminal(Some(request.terminal));
        let stdio = Stdio {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let name = format!("process {id} of task {}", request.id);
        let process = Arc::new(TaskProcess::new(name, stdio, Phase::Created));
        task.add_exec(&request.exec_id, Exec { process, spec })?;
        self.pod.events.publish(&TaskExecAdded {
            container_id: request.id,
            exec_id: request.exec_id,
            ..TaskExecAdded::default()
        });
        Ok(())
    }

    /// Changes what a task may use.
    pub(super) async fn update_task(&self, request: &UpdateTaskRequest) -> Result<()> {
        let task = self.pod.task(&request.id)?;
        let Some(resources) = request.resources.as_ref() else {
            return Ok(());
        };
        let resources: LinuxResources = serde_json::from_slice(&resources.value)
            .map_err(|error| Error::Invalid(format!("the resources of {}: {error}", request.id)))?;
        let sandbox = self.pod.handle()?;
        Ok(sandbox
            .update_container(&task.container, &resources)
            .await?)
    }
}

/// The size that the terminal of a process that is about to be made has from the beginning.
pub(super) fn size(spec: &mut Process, size: Option<(u16, u16)>) {
    if let Some((rows, columns)) = size {
        let console = BoxBuilder::default()
            .height(u64::from(rows))
            .width(u64::from(columns));
        // Both are there.
        spec.set_console_size(console.build().ok());
    }
}

/// Does what blocks on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::System {
        attempt: "do what blocks".into(),
        source: std::io::Error::other(error),
    })?
}
