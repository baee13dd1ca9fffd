//! StartContainer and ExecProcess.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use agent_protocol::agent::ExecProcessRequest;
use agent_protocol::oci_convert::process_from_message;

use super::create::launch_with_io;
use super::specification::{copying_process, prepare_exec};
use super::table::check_id;
use super::{Container, container_dir};
use crate::error::{Attempt as _, Error, Result};
use crate::launch::{Copy, Request, start_container};
use crate::process::{Process, Role, follow};
use crate::sandbox::Sandbox;
use crate::seccomp::PendingFilter;

static NEXT_EXEC: AtomicU64 = AtomicU64::new(0);

impl Container {
    /// Lets the first process go on, and returns when its program runs or could not be executed.
    /// Why it could not is what this gives, or nothing: that is the process's exit code 126 or 127,
    /// and no error here. A hook that fails is one, and ends the container.
    pub(crate) async fn start(&self) -> Result<String> {
        if self.init.has_ended() {
            return Err(Error::NotRunning(self.id.clone()));
        }
        if !self.init.request_start() {
            return Err(Error::State {
                object: format!("container {:?}", self.id),
                state: "started already",
            });
        }
        start_container(&self.library_id)?;
        let (_, start_error) = self.init.started(self.hooks_limit).await?.told();
        Ok(start_error)
    }

    /// Adds a process and starts it.
    pub(crate) async fn exec(&self, sandbox: &Sandbox, request: ExecProcessRequest) -> Result<()> {
        self.check_exec(&request.exec_id)?;
        let message = request.process.as_ref().ok_or(Error::Invalid {
            field: "process",
            value: String::new(),
            reason: "is missing in the request",
        })?;
        let process_spec = process_from_message(message)?;
        let process = self
            .add(sandbox, &request.exec_id, process_spec, None)
            .await?;
        sandbox
            .passfd
            .attach(
                &process,
                [request.stdin_port, request.stdout_port, request.stderr_port],
            )
            .await
    }

    /// Adds a process that copies, and starts it.
    pub(crate) async fn copy(&self, sandbox: &Sandbox, exec_id: &str, copy: Copy) -> Result<()> {
        self.check_exec(exec_id)?;
        let process = self
            .add(sandbox, exec_id, copying_process(), Some(copy))
            .await?;
        tracing::debug!(process = process.name(), "copies");
        Ok(())
    }

    /// Refuses a process that cannot be added now.
    fn check_exec(&self, exec_id: &str) -> Result<()> {
        check_id("exec id", exec_id)?;
        if self.init.has_ended() || !self.init.start_requested() {
            return Err(Error::NotRunning(self.id.clone()));
        }
        if self.is_paused() {
            return Err(Error::State {
                object: format!("container {:?}", self.id),
                state: "paused",
            });
        }
        if self
            .process(exec_id)
            .is_ok_and(|process| !process.has_ended())
        {
            return Err(Error::Exists(format!(
                "process {exec_id:?} of container {:?}",
                self.id
            )));
        }
        Ok(())
    }

    async fn add(
        &self,
        sandbox: &Sandbox,
        exec_id: &str,
        mut process_spec: oci_spec::runtime::Process,
        copy: Option<Copy>,
    ) -> Result<Arc<Process>> {
        prepare_exec(&mut process_spec, self.filter.is_some())?;

        let file = ProcessFile::write(&self.id, &process_spec)?;
        let launch_request = Request {
            container_id: self.library_id.clone(),
            bundle: container_dir(&self.id),
            exec_process: Some(file.path.clone()),
            cwd: Some(process_spec.cwd().clone()),
            copy,
            ..Request::default()
        };
        let filter = self.filter.clone().map(PendingFilter::Compiled);
        let (launched, io) =
            launch_with_io(sandbox, launch_request, &process_spec, filter, Vec::new()).await?;
        drop(file);
        let process = Process::new(&self.id, exec_id, launched.pid, io, launched.exit);
        process.request_start();
        let started = Some(launched.reported_uptime_us);
        let cgroup = Arc::clone(&self.cgroup);
        let (followed, launcher) = (Arc::clone(&process), Arc::clone(&sandbox.launcher));
        tokio::spawn(async move {
            follow(followed, launched.start, started, cgroup, Role::Added).await;
            launcher.expect_another();
        });
        self.add_exec(Arc::clone(&process));
        sandbox.containers.announce();
        Ok(process)
    }
}

/// A process's description for the container library, gone when it was read.
struct ProcessFile {
    path: std::path::PathBuf,
}

impl ProcessFile {
    fn write(container_id: &str, process: &oci_spec::runtime::Process) -> Result<Self> {
        let attempt = || format!("describe a process of container {container_id:?}");
        let number = NEXT_EXEC.fetch_add(1, Ordering::Relaxed);
        let path = container_dir(container_id).join(format!("exec-{number}.json"));
        let text = serde_json::to_vec(process).map_err(|source| Error::Json {
            attempt: attempt(),
            source,
        })?;
        fs::write(&path, text).attempt(attempt)?;
        Ok(Self { path })
    }
}

impl Drop for ProcessFile {
    fn drop(&mut self) {
        // Its directory goes with the container.
        let _ = fs::remove_file(&self.path);
    }
}
