//! CreateContainer.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_protocol::agent::{CopyFileRequest, CreateContainerRequest};
use agent_protocol::oci_convert::spec_from_message;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::namespaces::JoinedNamespaces;
use super::ready_made::ReadyMade;
use super::specification::{join_pid_namespace, prepare_spec};
use super::sysctl::NetworkSysctls;
use super::wanted::Wanted;
use super::{Container, container_dir};
use crate::cgroup::{Cgroup, DeviceRules};
use crate::error::{Attempt as _, Error, Result};
use crate::files::copy_file;
use crate::launch::{
    CONTAINERS_STATE_DIR, ChildStdio, Launched, Passed, Request, StartHooks, Working, launch,
};
use crate::process::{
    Process, ProcessIo, Role, StdioPipes, TerminalSocket, follow, resize, set_owner,
};
use crate::sandbox::{Sandbox, blocking};
use crate::seccomp::{Filter, PendingFilter};
use crate::storage::Mounted;

impl Container {
    /// Makes a container, which finds `files` in the guest: its first process waits for the start. Its processes get
    /// `filter`, or the filter of system calls that its specification describes.
    pub(crate) async fn create(
        sandbox: &Sandbox,
        request: CreateContainerRequest,
        filter: Option<Filter>,
        files: Vec<CopyFileRequest>,
    ) -> Result<()> {
        let id = request.container_id.clone();
        let reservation = sandbox.containers.reserve(&id)?;
        refuse_unsupported(&request)?;
        if !files.is_empty() {
            blocking(move || files.iter().try_for_each(copy_file)).await?;
        }
        let message = request.OCI.as_ref().ok_or(Error::Invalid {
            field: "OCI",
            value: String::new(),
            reason: "is missing in the request",
        })?;
        let mut spec = spec_from_message(message)?;
        let cgroups_path = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.cgroups_path().as_deref());
        let cgroup = Arc::new(Cgroup::of_container(&id, cgroups_path)?);
        let resources = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.resources().as_ref());
        let devices = DeviceRules::of(resources.and_then(|all| all.devices().as_deref()))?;
        let namespaces = JoinedNamespaces::open(&mut spec, &id, &sandbox.containers)?;
        let sysctls = NetworkSysctls::take(&mut spec)?;
        let described = prepare_spec(&mut spec, &cgroup, filter.is_some())?;
        tracing::debug!(by_host = filter.is_some(), "filter of system calls");
        let filter = match described {
            Some(seccomp) => Some(sandbox.filters.compile(seccomp)),
            None => filter.map(PendingFilter::from),
        };
        let hooks = StartHooks::take(&mut spec, &id, container_dir(&id))?;
        if request.sandbox_pidns {
            if namespaces.has(LinuxNamespaceType::Pid) {
                return Err(Error::Invalid {
                    field: "sandbox_pidns",
                    value: request.sandbox_pidns.to_string(),
                    reason: "is not possible with the pid namespace of another container",
                });
            }
            join_shared_pids(sandbox, &mut spec)?;
        }

        sysctls.set()?;
        let storages = sandbox.mount(request.storages.clone()).await?;
        let exec_id = if request.exec_id.is_empty() {
            &id
        } else {
            &request.exec_id
        };
        let parts = Parts {
            spec,
            filter,
            cgroup,
            namespaces,
            hooks,
            storages,
        };
        let (ready_made, unused) = parts.ready_made(sandbox);
        // Its process is seen by all that share its pid namespace. The end of it takes an emulated guest
        // longer than to start a program, which others need not wait for.
        let unused = unused.filter(|_| !request.sandbox_pidns);
        // The container is dropped before its files: its mounts are among them.
        let (files, container) = match ready_made {
            Some((made, wanted)) => {
                complete_init(sandbox, &id, exec_id, parts, made, wanted).await?
            }
            None => launch_init(sandbox, &id, exec_id, parts).await?,
        };
        if let Err(error) = complete(sandbox, &container, devices.as_ref(), &request).await {
            // What it failed for says more than that this fails too.
            let _ = container.take_down().await;
            return Err(error);
        }
        files.keep();
        if let Some(unused) = unused {
            let init = Arc::clone(&container.init);
            tokio::spawn(async move {
                init.start_outcome().await;
                drop(unused);
            });
        }
        reservation.fill(container);
        Ok(())
    }
}

/// The container's hooks, in its directory.
const HOOKS_FILE: &str = "start-hooks.json";

/// What a container is made of.
struct Parts {
    spec: Spec,
    filter: Option<PendingFilter>,
    cgroup: Arc<Cgroup>,
    namespaces: JoinedNamespaces,
    hooks: StartHooks,
    storages: Mounted,
}

/// Ends the container that waited for another one, when dropped.
#[derive(Debug)]
struct Unused(Option<ReadyMade>);

impl Drop for Unused {
    fn drop(&mut self) {
        if let Some(made) = self.0.take() {
            tokio::spawn(made.end_or_warn());
        }
    }
}

impl Parts {
    /// The container that waits, if it can become this one. It waits for the sandbox's first one: if
    /// that is another it is not used any more.
    fn ready_made(&self, sandbox: &Sandbox) -> (Option<(ReadyMade, Wanted)>, Option<Unused>) {
        let Some(made) = sandbox.take_ready_made() else {
            return (None, None);
        };
        let wanted = match self.hooks.is_empty() {
            true => made.wanted(&self.spec, self.filter.is_some()),
            false => None,
        };
        match wanted {
            Some(wanted) => (Some((made, wanted)), None),
            None => (None, Some(Unused(Some(made)))),
        }
    }
}

/// What is left to do when the first process waits for its start.
async fn complete(
    sandbox: &Sandbox,
    container: &Container,
    devices: Option<&DeviceRules>,
    request: &CreateContainerRequest,
) -> Result<()> {
    if let Some(devices) = devices {
        // Not before: the nodes in its root, of whatever device, are there now.
        container.cgroup.restrict_devices(devices)?;
    }
    sandbox.oom_events.watch(&container.id, &container.cgroup)?;
    let ports = [request.stdin_port, request.stdout_port, request.stderr_port];
    sandbox.passfd.attach(&container.init, ports).await
}

/// Has the container join the pid namespace that the sandbox's containers share.
pub(super) fn join_shared_pids(sandbox: &Sandbox, spec: &mut Spec) -> Result<()> {
    let namespace = sandbox.pid_namespace().ok_or_else(|| Error::State {
        object: "the sandbox's pid namespace".into(),
        state: "missing",
    })?;
    join_pid_namespace(spec, namespace.path())
}

fn refuse_unsupported(request: &CreateContainerRequest) -> Result<()> {
    if !request.devices.is_empty() {
        return Err(Error::Unsupported(
            "devices of a container are not supported".into(),
        ));
    }
    if !request.shared_mounts.is_empty() {
        return Err(Error::Unsupported(
            "mounts shared by containers are not supported".into(),
        ));
    }
    Ok(())
}

/// Has the container that waits become this one.
async fn complete_init(
    sandbox: &Sandbox,
    id: &str,
    exec_id: &str,
    parts: Parts,
    made: ReadyMade,
    wanted: Wanted,
) -> Result<(Files, Arc<Container>)> {
    let files = Files::directory(id)?;
    // In that directory: unmounted before it is removed.
    let storages = parts.storages;
    let made = made.complete(sandbox, id, wanted, parts.filter).await?;
    let container = follow_init(id, exec_id, made, parts.hooks.limit(), storages);
    Ok((files, container))
}

async fn launch_init(
    sandbox: &Sandbox,
    id: &str,
    exec_id: &str,
    parts: Parts,
) -> Result<(Files, Arc<Container>)> {
    let files = Files::write(id, &parts.spec, Some(&parts.hooks))?;
    let Parts {
        spec,
        filter,
        cgroup,
        mut namespaces,
        hooks,
        storages,
    } = parts;
    let request = Request {
        container_id: id.to_owned(),
        bundle: container_dir(id),
        cwd: spec.process().as_ref().map(|process| process.cwd().clone()),
        start_hooks: (!hooks.is_empty()).then(|| container_dir(id).join(HOOKS_FILE)),
        ..Request::default()
    };
    let process = spec.process().clone().unwrap_or_default();
    let inherited = namespaces.take_files();
    let (launched, io) = launch_with_io(sandbox, request, &process, filter, inherited)
        .await
        .map_err(|error| {
            // With anything in it, it stays: another container may have the same.
            cgroup.remove_empty();
            namespaces.explain(id, error)
        })?;
    let made = Init {
        library_id: id.to_owned(),
        cgroup,
        launched,
        io,
        maker: None,
    };
    let container = follow_init(id, exec_id, made, hooks.limit(), storages);
    Ok((files, container))
}

/// A first process that waits for its start, however it was made.
pub(super) struct Init {
    /// What the container library calls its container.
    pub(super) library_id: String,
    pub(super) cgroup: Arc<Cgroup>,
    pub(super) launched: Launched,
    pub(super) io: ProcessIo,
    /// To be kept until the start.
    pub(super) maker: Option<Working>,
}

/// The container whose first process waits for its start.
fn follow_init(
    id: &str,
    exec_id: &str,
    made: Init,
    hooks_limit: Duration,
    storages: Mounted,
) -> Arc<Container> {
    let Init {
        library_id,
        cgroup,
        launched,
        io,
        maker,
    } = made;
    let init = Process::new(id, exec_id, launched.pid, io, launched.exit);
    tokio::spawn(follow(
        Arc::clone(&init),
        launched.start,
        None,
        Arc::clone(&cgroup),
        Role::First,
    ));
    if let Some(maker) = maker {
        let init = Arc::clone(&init);
        tokio::spawn(async move {
            init.start_outcome().await;
            drop(maker);
        });
    }
    Arc::new(Container {
        id: id.to_owned(),
        library_id,
        cgroup,
        init,
        filter: launched.filter,
        hooks_limit,
        execs: Mutex::default(),
        paused: Mutex::new(false),
        storages: Mutex::new(storages),
    })
}

/// Makes a process with the streams that its specification asks for. The one that makes it has
/// `inherited` too, under their numbers here.
pub(super) async fn launch_with_io(
    sandbox: &Sandbox,
    request: Request,
    process: &oci_spec::runtime::Process,
    filter: Option<PendingFilter>,
    inherited: Vec<OwnedFd>,
) -> Result<(Launched, ProcessIo)> {
    if process.terminal() != Some(true) {
        let pipes = StdioPipes::new()?;
        let passed = Passed {
            stdio: pipes.child,
            inherited,
        };
        let launched = launch(&sandbox.launcher, request, passed, None, filter).await?;
        return Ok((launched, pipes.io));
    }
    let socket = TerminalSocket::new()?;
    let passed = Passed {
        stdio: ChildStdio::default(),
        inherited,
    };
    let mut launched = launch(&sandbox.launcher, request, passed, Some(socket), filter).await?;
    let terminal = launched.terminal.take().ok_or(Error::State {
        object: "the container's terminal".into(),
        state: "missing",
    })?;
    set_owner(&terminal, process.user().uid(), process.user().gid())?;
    if let Some(size) = process.console_size() {
        let cells = |cells: u64| u32::try_from(cells).unwrap_or(u32::MAX);
        resize(&terminal, cells(size.height()), cells(size.width()))?;
    }
    Ok((launched, ProcessIo::of_terminal(terminal)?))
}

/// The files of a container, removed when it is not made after all.
#[must_use]
pub(super) struct Files {
    id: Option<String>,
}

impl Files {
    /// A place for the files to come.
    fn directory(id: &str) -> Result<Self> {
        let files = Self {
            id: Some(id.to_owned()),
        };
        let attempt = || format!("make a directory for container {id:?}");
        fs::create_dir_all(container_dir(id)).attempt(attempt)?;
        Ok(files)
    }

    /// What the container library reads.
    pub(super) fn write(id: &str, spec: &Spec, hooks: Option<&StartHooks>) -> Result<Self> {
        let files = Self::directory(id)?;
        let directory = container_dir(id);
        let attempt = || format!("write the specification of container {id:?}");
        fs::create_dir_all(CONTAINERS_STATE_DIR).attempt(attempt)?;
        let json = |source| Error::Json {
            attempt: attempt(),
            source,
        };
        let text = serde_json::to_vec(spec).map_err(json)?;
        fs::write(directory.join("config.json"), text).attempt(attempt)?;
        if let Some(hooks) = hooks.filter(|hooks| !hooks.is_empty()) {
            let text = serde_json::to_vec(hooks).map_err(json)?;
            fs::write(directory.join(HOOKS_FILE), text).attempt(attempt)?;
        }
        Ok(files)
    }

    pub(super) fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            super::remove::remove_files(id);
        }
    }
}
