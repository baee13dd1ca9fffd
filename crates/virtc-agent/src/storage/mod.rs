//! Mounts what the host asks for: shares, disks, scratch space, overlays.
//!
//! All of it may block, and runs on a thread that may.

mod bind;
mod block;
mod forget;
mod options;
mod overlay;
mod scratch;
mod shares;
mod tmpfs;
mod unwritten;
mod virtio_fs;

use std::fs;
use std::path::{Path, PathBuf};

use agent_protocol::agent::Storage;
use agent_protocol::guest::SYSTEM_SHARE_TAG;
use agent_protocol::storages::SHARE_DRIVER;
use rustix::mount::{UnmountFlags, unmount};

use crate::error::{Attempt as _, Error, Result};
use crate::modules::Modules;

pub(crate) use self::forget::{forget, forget_all};
pub(crate) use self::shares::look_at;
pub(crate) use self::unwritten::{Reaching, has_unwritten};

/// The drivers, as `GetGuestDetails` names them.
pub(crate) const DRIVERS: [&str; 5] = [SHARE_DRIVER, "blk", "ephemeral", "overlayfs", "bind"];

/// A driver option: make the directories that the mount needs.
const CREATE_DIRS: &str = "create-dirs";

/// A driver option: make the file that is mounted over.
const CREATE_FILE: &str = "create-file";

/// Storages that are mounted, unmounted from the last to the first when dropped.
#[derive(Debug, Default)]
pub(crate) struct Mounted {
    storages: Vec<Storage>,
    has_disk: bool,
}

impl Mounted {
    /// Mounts `storages` in order. When one fails, those before it are unmounted again.
    pub(crate) fn mount_all(storages: &[Storage], modules: &Modules) -> Result<Self> {
        let mut mounted = Self::default();
        for storage in storages {
            mounted.mount(storage, modules)?;
        }
        Ok(mounted)
    }

    /// Those of `storages` that are not mounted just so.
    pub(crate) fn missing_of(&self, mut storages: Vec<Storage>) -> Vec<Storage> {
        storages.retain(|storage| !self.storages.contains(storage));
        storages
    }

    /// Where those of `storages` lie that are shares and mounted just so.
    pub(crate) fn shares_of(&self, storages: &[Storage]) -> Vec<PathBuf> {
        let is_share = |storage: &&Storage| storage.driver == SHARE_DRIVER;
        let shares = storages.iter().filter(is_share);
        let mounted = shares.filter(|share| self.storages.contains(share));
        mounted
            .map(|share| share.mount_point.clone().into())
            .collect()
    }

    /// Which of them reach the host.
    pub(crate) fn reaching(&self) -> Reaching {
        let shares = self
            .storages
            .iter()
            .filter(|storage| storage.driver == SHARE_DRIVER && storage.source != SYSTEM_SHARE_TAG);
        let disks = self.storages.iter();
        let disks = disks.filter(|storage| storage.driver == "blk" && block::is_scratch(storage));
        Reaching {
            shares: shares
                .map(|share| share.mount_point.clone().into())
                .collect(),
            scratch_disks: disks.count(),
        }
    }

    /// Takes over the others, which were mounted later.
    pub(crate) fn append(&mut self, mut later: Self) {
        self.storages.append(&mut later.storages);
        self.has_disk |= later.has_disk;
    }

    /// Whether one of them is a disk that is kept: it is whole only when it has been unmounted.
    pub(crate) fn has_disk(&self) -> bool {
        self.has_disk
    }

    /// Mounts one more.
    pub(crate) fn mount(&mut self, storage: &Storage, modules: &Modules) -> Result<()> {
        let mount_point = checked_path("mount point", &storage.mount_point)?;
        if storage.fs_group.is_some() {
            return Err(Error::Unsupported(
                "a storage's fs_group is not supported".into(),
            ));
        }
        match storage.driver.as_str() {
            SHARE_DRIVER => virtio_fs::mount_share(storage, mount_point, modules)?,
            "blk" => {
                block::mount_disk(storage, mount_point, modules)?;
                self.has_disk |= !block::is_scratch(storage);
            }
            "ephemeral" => tmpfs::mount_scratch(storage, mount_point, modules)?,
            "overlayfs" => overlay::mount_overlay(storage, mount_point, modules)?,
            "bind" => bind::mount_bind(storage, mount_point)?,
            driver => {
                return Err(Error::Invalid {
                    field: "storage driver",
                    value: driver.to_owned(),
                    reason: "is not one of this agent's",
                });
            }
        }
        self.storages.push(storage.clone());
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A disk can be taken away before a mount that somebody still has is gone.
        if self.has_disk {
            rustix::fs::sync();
        }
        for storage in self.storages.drain(..).rev() {
            let mount_point = &storage.mount_point;
            if let Err(error) = unmount(mount_point, UnmountFlags::DETACH) {
                tracing::warn!(?mount_point, %error, "cannot unmount");
            }
        }
    }
}

pub(crate) use tmpfs::resize_scratch;

/// An absolute path without steps upwards.
pub(crate) fn checked_path<'a>(field: &'static str, path: &'a str) -> Result<&'a Path> {
    let checked = Path::new(path);
    let upwards = checked
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    if !checked.is_absolute() || upwards {
        return Err(Error::Invalid {
            field,
            value: path.to_owned(),
            reason: "is not an absolute path without \"..\"",
        });
    }
    Ok(checked)
}

fn has_option(storage: &Storage, option: &str) -> bool {
    storage.driver_options.iter().any(|given| given == option)
}

fn create_dir_all(path: &Path) -> Result<()> {
    fs::create_dir_all(path).attempt(|| format!("create {}", path.display()))
}

/// What an error calls a mount.
fn describe(storage: &Storage) -> String {
    format!(
        "mount {} {:?} on {}",
        storage.driver, storage.source, storage.mount_point
    )
}

#[cfg(test)]
mod tests {
    use agent_protocol::storages::{scratch_disk, share};

    use super::*;

    #[test]
    fn what_is_mounted_just_so_is_not_mounted_again() {
        let mut mounted = Mounted::default();
        mounted.storages.push(scratch_disk());
        let others = [
            |storage: &mut Storage| storage.options.push("ro".into()),
            |storage: &mut Storage| storage.mount_point.push('2'),
            |storage: &mut Storage| storage.driver = "ephemeral".into(),
        ];
        let others = others.map(|change| {
            let mut other = scratch_disk();
            change(&mut other);
            other
        });
        let asked = [&[scratch_disk()][..], &others].concat();
        assert_eq!(mounted.missing_of(asked), others);
        // It is not there any more.
        mounted.storages.clear();
        assert_eq!(mounted.missing_of(others.to_vec()), others);
    }

    #[test]
    fn the_invokers_share_reaches_the_host_and_scratch_space_does_not() {
        let mut mounted = Mounted::default();
        mounted.storages = vec![share(SYSTEM_SHARE_TAG), share("user"), scratch_disk()];
        let reaching = mounted.reaching();
        assert_eq!(reaching.shares, [Path::new("/run/virtc/shares/user")]);
        assert_eq!(reaching.scratch_disks, 1);
        mounted.storages.clear();
    }
}
