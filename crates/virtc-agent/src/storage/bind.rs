//! A directory or file of the guest at a second place.

use std::fs::{self, OpenOptions};
use std::path::Path;

use agent_protocol::agent::Storage;
use rustix::mount::{
    MountFlags, mount_bind as bind, mount_bind_recursive, mount_change, mount_remount,
};

use super::options::Options;
use super::{CREATE_DIRS, CREATE_FILE, checked_path, create_dir_all, describe, has_option};
use crate::error::{Attempt as _, Result};

pub(super) fn mount_bind(storage: &Storage, mount_point: &Path) -> Result<()> {
    let source = checked_path("bind source", &storage.source)?;
    let options = Options::parse(&storage.options)?;
    create_places(storage, source, mount_point)?;
    if options.recursive || storage.options.is_empty() {
        mount_bind_recursive(source, mount_point).attempt(|| describe(storage))?;
    } else {
        bind(source, mount_point).attempt(|| describe(storage))?;
    }
    // The kernel takes the flags of a bind only when it is mounted again.
    if !options.flags.is_empty() {
        mount_remount(mount_point, MountFlags::BIND | options.flags, c"")
            .attempt(|| describe(storage))?;
    }
    if let Some(propagation) = options.propagation {
        mount_change(mount_point, propagation).attempt(|| describe(storage))?;
    }
    Ok(())
}

fn create_places(storage: &Storage, source: &Path, mount_point: &Path) -> Result<()> {
    let create_file = has_option(storage, CREATE_FILE);
    if has_option(storage, CREATE_DIRS) && !create_file {
        create_dir_all(source)?;
        create_dir_all(mount_point)?;
    } else if create_file || fs::metadata(source).is_ok_and(|source| !source.is_dir()) {
        if let Some(parent) = mount_point.parent() {
            create_dir_all(parent)?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(mount_point)
            .attempt(|| format!("create {}", mount_point.display()))?;
    } else {
        create_dir_all(mount_point)?;
    }
    Ok(())
}
