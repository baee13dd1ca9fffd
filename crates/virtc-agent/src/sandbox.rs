//! What the agent's services share: the one sandbox of this guest.

use std::future::Future;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};

use agent_protocol::agent::Storage;

use crate::cgroup::{MemoryOfContainers, OomEvents};
use crate::container::{Container, Containers, ReadyMade, ReadyMadeSlot};
use crate::error::{Error, Result};
use crate::init::BootTimeline;
use crate::launch::Launcher;
use crate::modules::Modules;
use crate::network::Network;
use crate::pid_namespace::PidNamespace;
use crate::reaper::Reaper;
use crate::seccomp::Filters;
use crate::storage::{Mounted, has_unwritten, look_at};
use crate::streams::PassfdStreams;

/// Things that block which a sandbox does at once when it is made.
const BLOCKING_THREADS: usize = 3;

/// The sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) containers: Containers,
    pub(crate) oom_events: Arc<OomEvents>,
    pub(crate) passfd: Arc<PassfdStreams>,
    pub(crate) launcher: Arc<Launcher>,
    pub(crate) filters: Filters,
    pub(crate) reaper: Reaper,
    pub(crate) network: Network,
    pub(crate) modules: Modules,
    pub(crate) memory: Arc<MemoryOfContainers>,
    storages: Mutex<Mounted>,
    pid_namespace: Mutex<Option<PidNamespace>>,
    ready_made: Mutex<ReadyMadeSlot>,
    /// Held by whoever makes a container ahead.
    pub(crate) standing_by: tokio::sync::Mutex<()>,
    timeline: Mutex<BootTimeline>,
}

impl Sandbox {
    /// An empty sandbox.
    pub(crate) fn new(
        modules: Modules,
        timeline: BootTimeline,
        reaper: Reaper,
        oom_events: Arc<OomEvents>,
        memory: MemoryOfContainers,
    ) -> Self {
        Self {
            containers: Containers::default(),
            oom_events,
            passfd: Arc::default(),
            launcher: Arc::new(Launcher::new(reaper.clone())),
            filters: Filters::default(),
            reaper,
            network: Network::default(),
            modules,
            memory: Arc::new(memory),
            storages: Mutex::default(),
            pid_namespace: Mutex::default(),
            ready_made: Mutex::default(),
            standing_by: tokio::sync::Mutex::default(),
            timeline: Mutex::new(timeline),
        }
    }

    /// Mounts storages on a thread that may block.
    pub(crate) async fn mount(&self, storages: Vec<Storage>) -> Result<Mounted> {
        if storages.is_empty() {
            return Ok(Mounted::default());
        }
        let modules = self.modules.clone();
        blocking(move || Mounted::mount_all(&storages, &modules)).await
    }

    /// Loads a module, on a thread that may block.
    pub(crate) async fn require_module(&self, name: &str) -> Result<()> {
        let (modules, name) = (self.modules.clone(), name.to_owned());
        blocking(move || modules.require(&name)).await
    }

    /// Makes the pid namespace that its containers can share, unless there is one.
    pub(crate) async fn share_pids(&self) -> Result<()> {
        if self.pid_namespace().is_some_and(|made| made.exists()) {
            return Ok(());
        }
        let making = PidNamespace::begin()?;
        let made = blocking(move || making.finish()).await?;
        *self.pid_namespace_slot() = Some(made);
        Ok(())
    }

    /// Ends the pid namespace that was made in case that its containers share one: at once, or with the
    /// container that waits in it.
    pub(crate) fn share_no_pids(&self) {
        let Some(namespace) = self.pid_namespace_slot().take() else {
            return;
        };
        match self.take_ready_made() {
            Some(mut made) => {
                made.has_alone(namespace);
                self.keep_ready_made(made);
            }
            None => namespace.end(),
        }
    }

    /// The pid namespace that the containers share, when there is one.
    pub(crate) fn pid_namespace(&self) -> Option<PidNamespace> {
        self.pid_namespace_slot().clone()
    }

    /// The container that waits, for whoever can use it.
    pub(crate) fn take_ready_made(&self) -> Option<ReadyMade> {
        self.ready_made().take()
    }

    /// Has it wait.
    pub(crate) fn keep_ready_made(&self, made: ReadyMade) {
        self.ready_made().keep(made);
    }

    /// The number of the next container that is made ahead.
    pub(crate) fn next_ready_made(&self) -> u64 {
        self.ready_made().next()
    }

    fn ready_made(&self) -> MutexGuard<'_, ReadyMadeSlot> {
        self.ready_made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounts storages that stay until the sandbox ends, unless they are mounted already.
    pub(crate) async fn add_storages(&self, storages: Vec<Storage>) -> Result<()> {
        // A template has its scratch disk and its shares before anybody asks for them.
        let (there, missing) = {
            let mounted = self.storages();
            (mounted.shares_of(&storages), mounted.missing_of(storages))
        };
        let mounted = self.mount(missing).await?;
        self.storages().append(mounted);
        if there.is_empty() {
            return Ok(());
        }
        tracing::debug!(shares = ?there, "mounted before they were asked for");
        // Whether a share that was mounted before anybody served it is served shows only now.
        blocking(move || look_at(&there)).await
    }

    /// Writes back what reaches the host, unless something may still change it: a process that
    /// lives, or a disk that is to be unmounted. Says whether it is done.
    pub(crate) async fn come_to_rest(&self) -> bool {
        let containers = self.containers.all();
        let busy = |container: &Arc<Container>| container.may_change_the_host();
        if self.storages().has_disk() || containers.iter().any(busy) {
            return false;
        }
        let reaching = self.storages().reaching();
        blocking(move || {
            // What is written to a share is written at once, and what is written to the memory of
            // a file when that is unmapped (fuse_vma_close): there is hardly ever anything left.
            if has_unwritten().unwrap_or(true) {
                reaching.write_back();
            }
            Ok(())
        })
        .await
        .is_ok()
    }

    /// Ends all processes, unmounts all storages, and writes back what reaches the host. What else
    /// there is of a container goes with the guest.
    pub(crate) async fn destroy(&self) -> Result<()> {
        let mut storages = std::mem::take(&mut *self.storages());
        if let Some(made) = self.take_ready_made() {
            made.end().await?;
        }
        for container in self.containers.all() {
            container.end_processes().await?;
            storages.append(container.take_storages());
        }
        blocking(move || {
            drop(storages);
            rustix::fs::sync();
            Ok(())
        })
        .await
    }

    /// Notes a point of the guest's start.
    pub(crate) fn step(&self, name: &'static str) {
        self.timeline().step(name);
    }

    /// The points of the guest's start.
    pub(crate) fn timeline(&self) -> MutexGuard<'_, BootTimeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pid_namespace_slot(&self) -> MutexGuard<'_, Option<PidNamespace>> {
        self.pid_namespace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn storages(&self) -> MutexGuard<'_, Mounted> {
        self.storages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs something that blocks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(interrupted()))
}

/// Has threads wait for what blocks, for as long as the runtime keeps them: a clone makes its sandbox
/// and its files at once, and the making of a thread is a tenth of that.
pub(crate) async fn start_blocking_threads() -> Result<()> {
    let all = Arc::new(Barrier::new(BLOCKING_THREADS));
    let waiting = [(); BLOCKING_THREADS].map(|()| {
        let all = Arc::clone(&all);
        tokio::task::spawn_blocking(move || {
            all.wait();
        })
    });
    for thread in waiting {
        thread.await.map_err(|_| interrupted())?;
    }
    Ok(())
}

/// Runs something to its end, also when the call that asked for it is given up half-way.
pub(crate) async fn uninterrupted<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|_| Err(interrupted()))
}

fn interrupted() -> Error {
    Error::State {
        object: "the agent".into(),
        state: "ending",
    }
}
