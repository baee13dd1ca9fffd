//! The sandbox's containers.

mod create;
mod exec;
mod namespaces;
mod ready_made;
mod rehearsal;
mod remove;
mod specification;
mod sysctl;
mod table;
mod wanted;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_protocol::guest::CONTAINERS_DIR;

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::process::Process;
use crate::seccomp::Filter;
use crate::storage::Mounted;

pub(crate) use ready_made::{ReadyMade, ReadyMadeSlot};
pub(crate) use rehearsal::rehearse;
pub(crate) use specification::CONTAINER_FILES_MAX;
pub(crate) use table::Containers;

/// Ended execs whose status is kept for whoever asks late.
const ENDED_EXECS_MAX: usize = 256;

/// A container that exists.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    /// What the container library calls it: another name where it was ready-made.
    library_id: String,
    pub(crate) cgroup: Arc<Cgroup>,
    pub(crate) init: Arc<Process>,
    /// What every process of the container may ask of the kernel.
    filter: Option<Arc<Filter>>,
    /// How long its hooks may take when it is started.
    hooks_limit: Duration,
    execs: Mutex<VecDeque<Arc<Process>>>,
    paused: Mutex<bool>,
    /// What was mounted for this container alone.
    storages: Mutex<Mounted>,
}

impl Container {
    /// The process that a call names: nothing, or the container's id, is the first one.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() || exec_id == self.id || exec_id == self.init.exec_id {
            return Ok(Arc::clone(&self.init));
        }
        let found = self
            .execs()
            .iter()
            .find(|process| process.exec_id == exec_id)
            .cloned();
        found.ok_or_else(|| Error::NoProcess {
            container: self.id.clone(),
            exec: exec_id.to_owned(),
        })
    }

    /// All execs that are known.
    pub(crate) fn exec_processes(&self) -> Vec<Arc<Process>> {
        self.execs().iter().cloned().collect()
    }

    /// Whether a process of it lives, or a disk is mounted for it.
    pub(crate) fn may_change_the_host(&self) -> bool {
        let storages = self.storages.lock().unwrap_or_else(PoisonError::into_inner);
        self.cgroup.is_populated() || storages.has_disk()
    }

    /// Stops or continues all processes.
    pub(crate) async fn set_paused(&self, paused: bool) -> Result<()> {
        if self.init.has_ended() || !self.init.start_requested() {
            return Err(Error::NotRunning(self.id.clone()));
        }
        self.cgroup.set_frozen(paused).await?;
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = paused;
        Ok(())
    }

    fn is_paused(&self) -> bool {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn execs(&self) -> MutexGuard<'_, VecDeque<Arc<Process>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an exec, in the place of an ended one with the same id, and forgets the oldest of too
    /// many ended ones.
    fn add_exec(&self, process: Arc<Process>) {
        let mut execs = self.execs();
        execs.retain(|other| other.exec_id != process.exec_id || !other.has_ended());
        execs.push_back(process);
        let ended = execs.iter().filter(|process| process.has_ended()).count();
        if ended > ENDED_EXECS_MAX
            && let Some(oldest) = execs.iter().position(|process| process.has_ended())
        {
            execs.remove(oldest);
        }
    }
}

/// Where a container's files are.
pub(crate) fn container_dir(container_id: &str) -> PathBuf {
    Path::new(CONTAINERS_DIR).join(container_id)
}
