use std::sync::Arc;

use virtcontainers::{ContainerHooks, HookKind, Process, Sandbox, SandboxHandle};

use crate::error::Result;
use crate::pod::{Pod, Task};
use crate::undoing::ANSWER_LIMIT;

/// What was made for a task.
#[derive(Debug)]
pub(super) enum Place {
    /// A sandbox of its own.
    Sandbox(Box<Sandbox>),
    /// A container in the sandbox of the pod.
    Member(SandboxHandle),
}

/// A container that was made for a task which is not complete yet. Dropped before it is, the container
/// is removed again, and its hooks for that are run.
#[derive(Debug)]
pub(super) struct Made {
    pod: Arc<Pod>,
    task: Arc<Task>,
    place: Option<Place>,
    /// Where it is given when the container is made.
    process: Option<Process>,
    hooks: Option<ContainerHooks>,
}

impl Made {
    pub(super) fn new(pod: &Arc<Pod>, task: &Arc<Task>, place: Place) -> Self {
        Self {
            pod: Arc::clone(pod),
            task: Arc::clone(task),
            place: Some(place),
            process: None,
            hooks: None,
        }
    }

    /// The process of it, with its streams.
    pub(super) fn has(&mut self, process: Process) {
        self.process = Some(process);
    }

    /// Runs the hooks of a container that is being made, and gives its process.
    pub(super) async fn complete(&mut self) -> Result<Process> {
        let container = &self.task.container;
        let sandbox = match &self.place {
            Some(Place::Member(sandbox)) => sandbox.clone(),
            Some(Place::Sandbox(sandbox)) => sandbox.handle().clone(),
            None => self.pod.handle()?,
        };
        let runtime = self.pod.runtime();
        let hooks = runtime.container_hooks(sandbox.id(), container)?;
        let hooks = self.hooks.insert(hooks);
        hooks.run_creating(self.task.pid()).await?;
        if let Some(Place::Sandbox(sandbox)) = &self.place {
            // What fills a namespace by hooks has done so.
            sandbox.update_network().await?;
        }
        match self.process.take() {
            Some(process) => Ok(process),
            None => Ok(sandbox.process(container)?),
        }
    }

    /// The task is complete, and has it.
    pub(super) fn keep(mut self) -> Option<Place> {
        if let Some(hooks) = self.hooks.take() {
            let _ = self.task.hooks.set(hooks);
        }
        self.place.take()
    }

    /// Removes it, and waits for that.
    pub(super) async fn undo(self) {
        let pod = Arc::clone(&self.pod);
        drop(self);
        pod.undoing.ended(ANSWER_LIMIT).await;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else {
            return;
        };
        // Its root stays mounted for as long: the task has that.
        let (hooks, task) = (self.hooks.take(), Arc::clone(&self.task));
        self.pod.undoing.begin(async move {
            let removed = match place {
                Place::Sandbox(sandbox) => sandbox.delete().await.map(drop),
                Place::Member(sandbox) => sandbox.delete_container(&task.container, true).await,
            };
            if let Err(error) = removed {
                tracing::warn!(%error, "not everything is removed after the making failed");
            }
            if let Some(hooks) = hooks
                && let Err(error) = hooks.run(HookKind::Poststop, None).await
            {
                tracing::warn!(%error, "hooks of a container that was not made");
            }
        });
    }
}
