use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::events::task::TaskDelete;
use containerd_shim_protos::protobuf::MessageField;
use tokio::time::timeout;
use vc_types::{SandboxId, SandboxState};
use virtcontainers::{HookKind, fault};

use super::{TaskService, pid_of};
use crate::error::{Error, Result};
use crate::pod::Task;
use crate::process::{Exit, Phase, TaskProcess};
use crate::publisher::timestamp;

/// How long the tasks of a pod may take to end with the one whose machine they are in: containerd gives a
/// whole removal ten seconds.
const OTHERS_END_LIMIT: Duration = Duration::from_secs(5);

impl TaskService {
    /// Removes a task that does not run, and the sandbox with the one that it is for.
    pub(super) async fn delete_task(&self, id: &str) -> Result<DeleteResponse> {
        let pod = &self.pod;
        let task = pod.task(id)?;
        let _changing = task.first.changing.lock().await;
        let exit = exit_of(&task.first)?;
        task.first.drained().await;
        fault::point("task-delete.begun")?;
        match task.owns_sandbox {
            true => self.delete_sandbox(&task).await?,
            false => self.delete_member(&task).await?,
        }
        if let Some(hooks) = task.hooks.get()
            && let Err(error) = hooks.run(HookKind::Poststop, None).await
        {
            tracing::warn!(%error, "hooks of a container that is gone");
        }
        fault::point("delete.hooks-run")?;
        let rootfs = task.take_rootfs();
        super::exec::blocking(move || {
            drop(rootfs);
            Ok(())
        })
        .await?;
        fault::point("task-delete.unmounted")?;
        // One that was never started has ended too.
        task.first.enter(Phase::Stopped(exit));
        pod.remove_task(id);
        pod.events.publish(&TaskDelete {
            container_id: id.to_owned(),
            pid: pid_of(&task),
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..TaskDelete::default()
        });
        Ok(response(&task, exit))
    }

    async fn delete_sandbox(&self, task: &Task) -> Result<()> {
        let pod = &self.pod;
        let mut others = pod.all_tasks();
        others.retain(|other| other.container != task.container);
        if matches!(task.first.phase(), Phase::Stopped(_)) {
            // Its machine ends with it, and the others with the machine.
            let ended = async {
                for other in &others {
                    other.first.ended().await;
                }
            };
            // Who has not ended by then is named below.
            let _ = timeout(OTHERS_END_LIMIT, ended).await;
        }
        if let Some(other) = others
            .iter()
            .find(|other| other.first.phase().exit().is_none())
        {
            return Err(Error::Precondition {
                what: other.first.name().to_owned(),
                state: other.first.phase().name(),
                wanted: "left without its sandbox",
            });
        }
        let mut slot = pod.sandbox.lock().await;
        pod.set_handle(None);
        if let Some(sandbox) = slot.take() {
            // One that has stopped is no error.
            sandbox.delete().await?;
            return Ok(());
        }
        // What an attempt before this one has left.
        let (runtime, id) = (pod.runtime(), SandboxId::new(task.container.as_str())?);
        super::exec::blocking(move || match runtime.delete_sandbox(&id, true) {
            Err(error) if error.is_not_found() => Ok(()),
            removed => Ok(removed.map(drop)?),
        })
        .await
    }

    async fn delete_member(&self, task: &Task) -> Result<()> {
        let Ok(sandbox) = self.pod.handle() else {
            // It went with the sandbox.
            return Ok(());
        };
        let alive = sandbox.status()?.state != SandboxState::Stopped;
        let removed = match alive {
            true => sandbox.delete_container(&task.container, true).await,
            // The machine is gone, and what it had with it.
            false => Ok(()),
        };
        match removed {
            Err(error) if error.is_not_found() => Ok(()),
            removed => Ok(removed?),
        }
    }

    /// Removes a process that was added.
    pub(super) async fn delete_exec(&self, id: &str, exec_id: &str) -> Result<DeleteResponse> {
        let task = self.pod.task(id)?;
        let process = Arc::clone(&task.exec(exec_id)?.process);
        let _changing = process.changing.lock().await;
        let exit = exit_of(&process)?;
        process.drained().await;
        process.enter(Phase::Stopped(exit));
        task.remove_exec(exec_id);
        Ok(response(&task, exit))
    }
}

/// How what is to be removed has ended.
fn exit_of(process: &TaskProcess) -> Result<Exit> {
    match process.phase() {
        Phase::Stopped(exit) => Ok(exit),
        // It goes without having run, which is no success.
        Phase::Created => Ok(Exit::lost()),
        phase @ (Phase::Creating | Phase::Running | Phase::Paused) => Err(Error::Precondition {
            what: process.name().to_owned(),
            state: phase.name(),
            wanted: "deleted",
        }),
    }
}

fn response(task: &Task, exit: Exit) -> DeleteResponse {
    DeleteResponse {
        pid: pid_of(task),
        exit_status: exit.code,
        exited_at: MessageField::some(timestamp(exit.at)),
        ..DeleteResponse::default()
    }
}
