use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::events::task::{TaskCreate, TaskIO, TaskOOM};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use oci_spec::runtime::Spec;
use vc_cgroups::CgroupDriver;
use vc_types::ContainerId;
use virtcontainers::{Bundle, ContainerConfig, SandboxConfig, SandboxHandle};

use super::made::{Made, Place};
use super::{TaskService, pid_of};
use crate::bundle::{annotations_of, check, root_of, sandbox_of, spec_of};
use crate::disk::DiskRoot;
use crate::error::{Error, Result};
use crate::io::{Opened, Stdio};
use crate::options::Options;
use crate::pod::{Pod, Task};
use crate::process::{Phase, TaskProcess};
use crate::rootfs::Rootfs;
use crate::stand_in::StandIn;
use crate::undoing::ANSWER_LIMIT;

/// How often at most a shortage of one container is told.
const OOM_EVENT_PAUSE: Duration = Duration::from_secs(1);

/// A task that is being made; dropped before it is done, nothing of it stays.
struct Making<'a> {
    pod: &'a Pod,
    task: Arc<Task>,
    done: bool,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.task
                .first
                .enter(Phase::Stopped(crate::process::Exit::lost()));
            self.pod.remove_task(self.task.container.as_str());
        }
    }
}

impl TaskService {
    /// Makes a container, and the sandbox with the first one. Gives the number of what stands for it.
    pub(super) async fn create_task(&self, request: CreateTaskRequest) -> Result<u32> {
        let pod = &*self.pod;
        let container = ContainerId::new(&request.id)?;
        if !request.checkpoint.is_empty() {
            return Err(Error::Unsupported("a container from a checkpoint".into()));
        }
        if let Some(options) = request.options.as_ref() {
            // A further container of a pod has what the pod has.
            Options::of(options)?;
        }
        let stdio = Stdio {
            terminal: request.terminal,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
        };
        let bundle = PathBuf::from(&request.bundle);
        let spec = spec_of(&bundle)?;
        check(&spec)?;
        let owns_sandbox = !pod.served.is_there() && sandbox_of(&spec, &request.id)? == request.id;
        let stand_in = match owns_sandbox {
            true => None,
            false => Some(StandIn::begin().map_err(|source| Error::System {
                attempt: format!("stand for task {container}"),
                source,
            })?),
        };
        let name = format!("task {container}");
        let first = TaskProcess::new(name, stdio, Phase::Creating);
        let task = Arc::new(Task::new(container, bundle, stand_in, first));
        pod.add_task(&task)?;
        let mut making = Making {
            pod,
            task: Arc::clone(&task),
            done: false,
        };
        tokio::select! {
            made = self.make(&task, &request) => made?,
            () = task.given_up.notified() => {
                // What was made by then goes before this is answered.
                pod.undoing.ended(ANSWER_LIMIT).await;
                return Err(Error::Finished { what: task.first.name().to_owned() });
            }
        }
        making.done = true;
        pod.events.publish(&TaskCreate {
            container_id: request.id,
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: MessageField::some(TaskIO {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
                ..TaskIO::default()
            }),
            pid: pid_of(&task),
            ..TaskCreate::default()
        });
        task.first.enter(Phase::Created);
        // It can end before it is started.
        super::start::watch(&self.pod, &task, None);
        Ok(pid_of(&task))
    }

    async fn make(&self, task: &Arc<Task>, request: &CreateTaskRequest) -> Result<()> {
        let pod = &*self.pod;
        let (stdio, namespace) = (task.first.stdio.clone(), pod.namespace.clone());
        let (mounts, target) = (request.rootfs.clone(), root_of(&task.bundle));
        let (id, directory) = (request.id.clone(), task.bundle.clone());
        let (rootfs, disk, opened, bundle) = pod
            .undoing
            .blocking(move || {
                let disk = DiskRoot::of(&mounts);
                let mounts = match disk {
                    Some(_) => &[],
                    None => mounts.as_slice(),
                };
                let rootfs = Rootfs::mount(mounts, &target)?;
                let opened = stdio.open(&namespace, &id)?;
                Ok((rootfs, disk, opened, Bundle::open(&directory)?))
            })
            .await?;
        *task.rootfs.lock().unwrap_or_else(PoisonError::into_inner) = Some(rootfs);
        match task.owns_sandbox {
            true => {
                let options = request.options.as_ref();
                self.make_sandbox(task, bundle, disk, options, opened).await
            }
            false => self.make_member(task, bundle, disk, opened).await,
        }
    }

    /// The machine, with the container that it is for.
    async fn make_sandbox(
        &self,
        task: &Arc<Task>,
        bundle: Bundle,
        disk: Option<DiskRoot>,
        options: Option<&Any>,
        opened: Opened,
    ) -> Result<()> {
        let pod = &*self.pod;
        let mut slot = pod.sandbox.lock().await;
        if slot.is_some() {
            return Err(Error::Exists {
                what: "the sandbox".into(),
            });
        }
        let driver = cgroup_driver(bundle.spec());
        let annotations = annotations_of(bundle.spec());
        let runtime = pod.runtime_with(options, &task.bundle, annotations)?;
        let mut config =
            SandboxConfig::of_bundle(bundle, &task.container, runtime.config(), driver)?;
        config.network = pod.network.clone();
        if let Some(disk) = disk {
            for container in &mut config.containers {
                container.root = disk.root(&container.root);
            }
        }
        let sandbox = runtime.create_sandbox(config).await?;
        let made = Made::new(&self.pod, task, Place::Sandbox(Box::new(sandbox)));
        if let Some(Place::Sandbox(sandbox)) = completed(made, task, opened).await? {
            let handle = sandbox.handle().clone();
            pod.set_handle(Some(handle.clone()));
            *slot = Some(*sandbox);
            tokio::spawn(tell_of_memory(Arc::clone(&self.pod), handle));
        }
        Ok(())
    }

    /// A further container of the pod.
    async fn make_member(
        &self,
        task: &Arc<Task>,
        bundle: Bundle,
        disk: Option<DiskRoot>,
        opened: Opened,
    ) -> Result<()> {
        let pod = &*self.pod;
        let sandbox = pod.handle()?;
        let runtime = pod.runtime();
        let mut neighbours = runtime.neighbours(sandbox.id())?;
        for other in pod.all_tasks() {
            neighbours.add(other.pid(), other.container.clone());
        }
        let driver = cgroup_driver(bundle.spec());
        let root = &runtime.config().runtime.root;
        let mut config = ContainerConfig {
            // This process stands for the pod's first container.
            stand_in: false,
            cgroup: None,
            ..bundle.container(task.container.clone(), &neighbours, driver, root)?
        };
        if let Some(disk) = disk {
            config.root = disk.root(&config.root);
        }
        let process = sandbox.create_container(config).await?;
        let mut made = Made::new(&self.pod, task, Place::Member(sandbox));
        made.has(process);
        completed(made, task, opened).await?;
        Ok(())
    }
}

/// Completes what was made, and lets the streams of its process flow. Where that fails, it is removed
/// again.
async fn completed(mut made: Made, task: &Task, opened: Opened) -> Result<Option<Place>> {
    let completed = async {
        let process = made.complete().await?;
        task.first.attach(process, opened).await
    };
    match completed.await {
        Ok(()) => Ok(made.keep()),
        Err(error) => {
            made.undo().await;
            Err(error)
        }
    }
}

/// Tells containerd of each container that runs out of memory, until the machine ends.
pub(super) async fn tell_of_memory(pod: Arc<Pod>, sandbox: SandboxHandle) {
    let mut told: BTreeMap<ContainerId, Instant> = BTreeMap::new();
    loop {
        match sandbox.get_oom_event().await {
            Ok(container) => {
                // A guest may name anything, at any rate.
                let known = pod.task(container.as_str()).is_ok();
                let now = Instant::now();
                let often = told
                    .get(&container)
                    .is_some_and(|last| now - *last < OOM_EVENT_PAUSE);
                if known && !often && pod.events.has_room() {
                    pod.events.publish(&TaskOOM {
                        container_id: container.to_string(),
                        ..TaskOOM::default()
                    });
                    told.retain(|_, last| now - *last < OOM_EVENT_PAUSE);
                    told.insert(container, now);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "no more news of memory");
                return;
            }
        }
    }
}

/// Which form the cgroup's path has: systemd's has the slice, a prefix and a name.
fn cgroup_driver(spec: &Spec) -> CgroupDriver {
    let path = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().as_deref());
    match path.and_then(Path::to_str) {
        Some(path) if path.matches(':').count() == 2 => CgroupDriver::Systemd,
        _ => CgroupDriver::Cgroupfs,
    }
}
