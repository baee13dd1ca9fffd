//! RemoveContainer.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::PoisonError;

use agent_protocol::guest::CONTAINER_FILES;

use super::ready_made::remove_ready_made;
use super::{Container, container_dir};
use crate::error::Result;
use crate::launch::CONTAINERS_STATE_DIR;
use crate::sandbox::Sandbox;
use crate::storage::Mounted;

impl Container {
    /// Kills what is left of a container and removes everything of it. When that fails the
    /// container is still there, to be removed again.
    pub(crate) async fn remove(sandbox: &Sandbox, id: &str) -> Result<()> {
        let (container, reservation) = sandbox.containers.withdraw(id).await?;
        if let Err(error) = container.take_down().await {
            reservation.fill(container);
            return Err(error);
        }
        remove_files(id);
        Ok(())
    }

    /// Kills its processes and removes all that it has but the files by its id.
    pub(super) async fn take_down(&self) -> Result<()> {
        self.end_processes().await?;
        self.cgroup.remove()?;
        drop(self.take_storages());
        if self.library_id != self.id {
            remove_ready_made(&self.library_id);
        }
        Ok(())
    }

    /// Kills its processes, and waits until all were collected.
    pub(crate) async fn end_processes(&self) -> Result<()> {
        // Frozen processes cannot be killed on every kernel.
        if self.is_paused() {
            self.cgroup.set_frozen(false).await?;
        }
        self.cgroup.kill().await
    }

    /// What was mounted for it alone; dropping it unmounts.
    pub(crate) fn take_storages(&self) -> Mounted {
        std::mem::take(&mut *self.storages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Removes a container's files in the guest, those that came from the host included, and no other level of them: what is
/// below may be mounted. What cannot be removed is logged and costs some memory.
pub(super) fn remove_files(id: &str) {
    let own = container_dir(id);
    let state = Path::new(CONTAINERS_STATE_DIR).join(id);
    for directory in [own.join(CONTAINER_FILES), own, state] {
        match remove_flat(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(?directory, %error, "cannot remove"),
        }
    }
}

fn remove_flat(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(directory)
}
