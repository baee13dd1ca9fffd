//! Scratch space in the guest's memory.

use std::path::Path;

use agent_protocol::agent::Storage;
use rustix::mount::{mount, mount_remount};

use super::options::Options;
use super::{checked_path, create_dir_all, describe};
use crate::error::{Attempt as _, Result};
use crate::modules::Modules;

pub(super) fn mount_scratch(
    storage: &Storage,
    mount_point: &Path,
    modules: &Modules,
) -> Result<()> {
    let options = Options::parse(&storage.options)?;
    let kind = match storage.fstype.as_str() {
        "" => "tmpfs",
        kind => kind,
    };
    modules.require(kind)?;
    create_dir_all(mount_point)?;
    let source = if storage.source.is_empty() {
        kind
    } else {
        &storage.source
    };
    mount(
        source,
        mount_point,
        kind,
        options.flags,
        Some(options.data.as_c_str()),
    )
    .attempt(|| describe(storage))
}

/// Gives mounted scratch space other options: another size.
pub(crate) fn resize_scratch(storages: &[Storage]) -> Result<()> {
    for storage in storages {
        let mount_point = checked_path("mount point", &storage.mount_point)?;
        let options = Options::parse(&storage.options)?;
        mount_remount(mount_point, options.flags, options.data.as_c_str())
            .attempt(|| format!("resize {}", storage.mount_point))?;
    }
    Ok(())
}
