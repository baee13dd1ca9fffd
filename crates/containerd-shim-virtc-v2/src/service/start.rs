use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::events::task::{TaskExecStarted, TaskExit, TaskOOM, TaskStart};
use containerd_shim_protos::protobuf::MessageField;
use tokio::time::timeout;
use virtcontainers::{HookKind, fault};

use super::{TaskService, pid_of};
use crate::error::{Error, Result};
use crate::pod::{Pod, Task};
use crate::process::{Phase, TaskProcess};
use crate::publisher::timestamp;

/// How long the end of a process may take whose program could not be executed.
const NOT_EXECUTED_LIMIT: Duration = Duration::from_secs(5);

impl TaskService {
    /// Lets the first process of a task begin.
    pub(super) async fn start_task(&self, id: &str) -> Result<u32> {
        let pod = &self.pod;
        let task = pod.task(id)?;
        let first = Arc::clone(&task.first);
        let changing = first.changing.lock().await;
        first.expect(Phase::Created, "started")?;
        let sandbox = pod.handle()?;
        if task.owns_sandbox
            && let Some(kept) = &*pod.sandbox.lock().await
        {
            // Networks that were given to this process after its task was made.
            kept.update_network().await?;
        }
        if let Some(reason) = sandbox.start_container(&task.container).await? {
            // Whoever is told so may delete it at once.
            drop(changing);
            let _ = timeout(NOT_EXECUTED_LIMIT, first.ended()).await;
            return Err(first.not_executed(reason));
        }
        if let Some((rows, columns)) = first.wanted_size()
            && let Err(error) = first.resize(rows, columns).await
        {
            tracing::debug!(%error, "a terminal keeps its size");
        }
        if first.enter(Phase::Running) {
            pod.events.publish(&TaskStart {
                container_id: id.to_owned(),
                pid: pid_of(&task),
                ..TaskStart::default()
            });
        }
        // Its end is told from here on.
        drop(changing);
        if let Some(kept) = &*pod.sandbox.lock().await {
            kept.refill();
        }
        if let Some(hooks) = task.hooks.get() {
            hooks.run(HookKind::Poststart, Some(task.pid())).await?;
        }
        Ok(pid_of(&task))
    }

    /// Adds the process that an exec described.
    pub(super) async fn start_exec(&self, id: &str, exec_id: &str) -> Result<u32> {
        let pod = &self.pod;
        let task = pod.task(id)?;
        let exec = task.exec(exec_id)?;
        let process = Arc::clone(&exec.process);
        let _changing = process.changing.lock().await;
        process.expect(Phase::Created, "started")?;
        task.first.expect(Phase::Running, "given a process")?;
        let (stdio, namespace) = (process.stdio.clone(), pod.namespace.clone());
        let name = id.to_owned();
        let opened = super::exec::blocking(move || stdio.open(&namespace, &name)).await?;
        let mut spec = exec.spec.clone();
        super::exec::size(&mut spec, process.wanted_size());
        let sandbox = pod.handle()?;
        let started = async {
            let guest = sandbox.enter_container(&task.container, &spec).await?;
            process.attach(guest, opened).await?;
            process.executed().await?;
            Ok(fault::point("exec.carried")?)
        };
        if let Err(error) = started.await {
            match &error {
                Error::NotExecuted { .. } => process.collect(NOT_EXECUTED_LIMIT).await,
                _ => process.abandon().await,
            }
            return Err(error);
        }
        process.enter(Phase::Running);
        pod.events.publish(&TaskExecStarted {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            pid: pid_of(&task),
            ..TaskExecStarted::default()
        });
        watch(pod, &task, Some((exec_id.to_owned(), process.clone())));
        Ok(pid_of(&task))
    }
}

/// Tells containerd of a process's end, after what it is told by who changes it at that moment.
pub(super) fn watch(pod: &Arc<Pod>, task: &Arc<Task>, exec: Option<(String, Arc<TaskProcess>)>) {
    let (pod, task) = (Arc::clone(pod), Arc::clone(task));
    tokio::spawn(async move {
        let (id, process) = match exec {
            Some((id, process)) => (id, process),
            None => (task.container.to_string(), Arc::clone(&task.first)),
        };
        let exit = process.guest_exit().await;
        let changing = process.changing.lock().await;
        if !process.enter(Phase::Stopped(exit)) {
            return;
        }
        if !Arc::ptr_eq(&process, &task.first)
            && let Err(error) = fault::point("exec.ended")
        {
            tracing::warn!(%error, "a test asks for it");
        }
        if exit.out_of_memory && Arc::ptr_eq(&process, &task.first) {
            // Before the end: containerd asks then why that was. What is told of shortages may come later.
            pod.events.publish(&TaskOOM {
                container_id: task.container.to_string(),
                ..TaskOOM::default()
            });
        }
        pod.events.publish(&TaskExit {
            container_id: task.container.to_string(),
            id,
            pid: pid_of(&task),
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..TaskExit::default()
        });
        drop(changing);
        if task.owns_sandbox && Arc::ptr_eq(&process, &task.first) {
            end_machine(&pod, &task).await;
        }
    });
}

/// Ends the machine when the container that it is for has ended, with its output told. The others in
/// it end too, and are seen to.
async fn end_machine(pod: &Pod, task: &Task) {
    task.first.drained().await;
    if let Some(sandbox) = &*pod.sandbox.lock().await
        && let Err(error) = sandbox.stop().await
    {
        tracing::error!(%error, "the machine was not ended");
    }
}
