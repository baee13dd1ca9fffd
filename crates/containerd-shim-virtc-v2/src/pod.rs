//! What one shim serves: a sandbox and the tasks in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use tokio::sync::Notify;
use vc_types::ContainerId;
use virtcontainers::{
    ContainerHooks, HostNamespaces, HostNetwork, NetworkConfig, Runtime, Sandbox, SandboxHandle,
};

use crate::error::{Error, Result};
use crate::options::{self, Options};
use crate::process::TaskProcess;
use crate::publisher::Publisher;
use crate::rootfs::Rootfs;
use crate::sandbox::PodSandbox;
use crate::stand_in::StandIn;
use crate::surroundings;
use crate::undoing::Undoing;

/// A task: a container, its first process, and those that were added.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) container: ContainerId,
    pub(crate) bundle: PathBuf,
    /// Whether the machine is its.
    pub(crate) owns_sandbox: bool,
    /// What stands for it on the host; nothing: this process.
    stand_in: Option<StandIn>,
    pub(crate) first: Arc<TaskProcess>,
    execs: Mutex<BTreeMap<String, Arc<Exec>>>,
    pub(crate) rootfs: Mutex<Option<Rootfs>>,
    pub(crate) hooks: OnceLock<ContainerHooks>,
    /// Whoever makes it is to give up.
    pub(crate) given_up: Notify,
}

/// A process that is added to a task.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) process: Arc<TaskProcess>,
    pub(crate) spec: oci_spec::runtime::Process,
}

impl Task {
    pub(crate) fn new(
        container: ContainerId,
        bundle: PathBuf,
        stand_in: Option<StandIn>,
        first: TaskProcess,
    ) -> Self {
        Self {
            container,
            bundle,
            owns_sandbox: stand_in.is_none(),
            stand_in,
            first: Arc::new(first),
            execs: Mutex::new(BTreeMap::new()),
            rootfs: Mutex::new(None),
            hooks: OnceLock::new(),
            given_up: Notify::new(),
        }
    }

    /// The number of what stands for it on the host.
    pub(crate) fn pid(&self) -> i32 {
        let own = || rustix::process::getpid().as_raw_nonzero().get();
        self.stand_in.as_ref().map_or_else(own, StandIn::id)
    }

    /// The process that a request is about: the first one, where it names none.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub(crate) fn process(&self, exec: &str) -> Result<Arc<TaskProcess>> {
        match exec {
            "" => Ok(Arc::clone(&self.first)),
            exec => Ok(Arc::clone(&self.exec(exec)?.process)),
        }
    }

    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub(crate) fn exec(&self, exec: &str) -> Result<Arc<Exec>> {
        self.execs()
            .get(exec)
            .cloned()
            .ok_or_else(|| Error::NotFound {
                what: format!("process {exec} of task {}", self.container),
            })
    }

    /// # Errors
    ///
    /// [`Error::Exists`].
    pub(crate) fn add_exec(&self, id: &str, exec: Exec) -> Result<()> {
        let mut execs = self.execs();
        if execs.contains_key(id) {
            return Err(Error::Exists {
                what: format!("process {id} of task {}", self.container),
            });
        }
        execs.insert(id.to_owned(), Arc::new(exec));
        Ok(())
    }

    pub(crate) fn remove_exec(&self, id: &str) {
        self.execs().remove(id);
    }

    fn execs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Exec>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take_rootfs(&self) -> Option<Rootfs> {
        self.rootfs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// A runtime, and what it was opened with.
#[derive(Clone, Debug)]
pub(crate) struct OpenRuntime {
    pub(crate) options: Options,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) runtime: Runtime,
}

/// The sandbox and its tasks.
#[derive(Debug)]
pub(crate) struct Pod {
    /// containerd's namespace.
    pub(crate) namespace: String,
    runtime: Mutex<OpenRuntime>,
    host_network: Arc<HostNetwork>,
    /// The network of the namespaces that this process is in.
    pub(crate) network: NetworkConfig,
    pub(crate) events: Publisher,
    tasks: Mutex<BTreeMap<String, Arc<Task>>>,
    /// Copies of it do not keep the machine.
    handle: Mutex<Option<SandboxHandle>>,
    /// The machine, and who changes it: one at a time.
    pub(crate) sandbox: tokio::sync::Mutex<Option<Sandbox>>,
    /// The sandbox as containerd may have it, without a task that it is for.
    pub(crate) served: PodSandbox,
    /// What is being removed that was made and is not wanted any more.
    pub(crate) undoing: Undoing,
    /// That this process may end.
    pub(crate) shut_down: Notify,
}

impl Pod {
    pub(crate) fn new(
        namespace: String,
        runtime: OpenRuntime,
        entered: HostNamespaces,
        events: Publisher,
    ) -> Self {
        Self {
            namespace,
            runtime: Mutex::new(runtime),
            host_network: entered.host_network,
            network: entered.network,
            events,
            tasks: Mutex::new(BTreeMap::new()),
            handle: Mutex::new(None),
            sandbox: tokio::sync::Mutex::new(None),
            served: PodSandbox::default(),
            undoing: Undoing::new(),
            shut_down: Notify::new(),
        }
    }

    /// What does all that is done with the sandbox.
    pub(crate) fn runtime(&self) -> Runtime {
        self.runtime_slot().runtime.clone()
    }

    /// The runtime for a sandbox that is about to be made, with the options and annotations that came
    /// with the request.
    ///
    /// # Errors
    ///
    /// Those of [`surroundings::runtime`].
    pub(crate) fn runtime_with(
        &self,
        any: Option<&Any>,
        bundle: &Path,
        annotations: BTreeMap<String, String>,
    ) -> Result<Runtime> {
        let mut open = self.runtime_slot().clone();
        // None are those that this process came with.
        let given = any
            .map(Options::of)
            .transpose()?
            .filter(|given| !given.are_none());
        let options = given.unwrap_or_else(|| open.options.clone());
        if options != open.options || annotations != open.annotations {
            let network = Some(Arc::clone(&self.host_network));
            open.runtime = surroundings::runtime(&self.namespace, &options, &annotations, network)?;
            if let Some(any) = any.filter(|_| options != open.options) {
                options::keep(any, bundle)?;
            }
            (open.options, open.annotations) = (options, annotations);
            *self.runtime_slot() = open.clone();
        }
        Ok(open.runtime)
    }

    fn runtime_slot(&self) -> MutexGuard<'_, OpenRuntime> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub(crate) fn task(&self, id: &str) -> Result<Arc<Task>> {
        self.tasks()
            .get(id)
            .cloned()
            .ok_or_else(|| Error::NotFound {
                what: format!("task {id}"),
            })
    }

    /// # Errors
    ///
    /// [`Error::Exists`].
    pub(crate) fn add_task(&self, task: &Arc<Task>) -> Result<()> {
        let mut tasks = self.tasks();
        let id = task.container.to_string();
        if tasks.contains_key(&id) {
            return Err(Error::Exists {
                what: format!("task {id}"),
            });
        }
        tasks.insert(id, Arc::clone(task));
        Ok(())
    }

    pub(crate) fn remove_task(&self, id: &str) {
        self.tasks().remove(id);
    }

    pub(crate) fn has_tasks(&self) -> bool {
        !self.tasks().is_empty()
    }

    /// The tasks in the sandbox that is this one's.
    pub(crate) fn all_tasks(&self) -> Vec<Arc<Task>> {
        self.tasks().values().cloned().collect()
    }

    /// What is done with the running sandbox.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when it has none.
    pub(crate) fn handle(&self) -> Result<SandboxHandle> {
        let handle = self.handle_slot().clone();
        handle.ok_or_else(|| Error::NotFound {
            what: "the sandbox".into(),
        })
    }

    pub(crate) fn set_handle(&self, handle: Option<SandboxHandle>) {
        *self.handle_slot() = handle;
    }

    fn handle_slot(&self) -> MutexGuard<'_, Option<SandboxHandle>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Task>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
