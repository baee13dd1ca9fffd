//! The shares of a template, mounted before anybody serves them: its clones have them as they are.

use std::fs;
use std::path::Path;

use agent_protocol::agent::Storage;
use agent_protocol::guest::{SHARE_OPTIONS, SHARES_DIR};

use super::virtio_fs;
use crate::error::Result;
use crate::sandbox::Sandbox;

/// Where our own kernel names the shares that a machine has, each in a directory of its own.
const SHARES_OF_KERNEL: &str = "/sys/fs/virtiofs";

impl Sandbox {
    /// Mounts the shares that the machine has. The kernel asks of a share only what it can do, and does not
    /// wait for the answer: that comes from whoever serves the clone's. Until then nobody may look at one,
    /// and nothing may be written back to all file systems.
    pub(crate) async fn mount_own_shares(&self) -> Result<()> {
        let tags = tags(Path::new(SHARES_OF_KERNEL));
        self.add_storages(tags.map(storage).collect()).await
    }
}

/// The tags of the shares that the machine has, as far as the kernel names them.
fn tags(named: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(named).into_iter().flatten();
    entries.filter_map(|entry| {
        let tag = fs::read_to_string(entry.ok()?.path().join("tag")).ok()?;
        Some(tag.trim_end().to_owned())
    })
}

/// As the host asks for it.
fn storage(tag: String) -> Storage {
    Storage {
        driver: virtio_fs::DRIVER.into(),
        fstype: virtio_fs::TYPE.into(),
        options: SHARE_OPTIONS.map(str::to_owned).into(),
        mount_point: format!("{SHARES_DIR}/{tag}"),
        source: tag,
        ..Storage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_mounted_as_the_host_asks_for_it() {
        let named = tempfile::tempdir().unwrap();
        fs::create_dir(named.path().join("0")).unwrap();
        fs::write(named.path().join("0/tag"), "virtc-user\n").unwrap();
        // One that the kernel is about to forget.
        fs::create_dir(named.path().join("1")).unwrap();
        let storages: Vec<_> = tags(named.path()).map(storage).collect();
        let [share] = storages.as_slice() else {
            panic!("{storages:?}");
        };
        assert_eq!(share.mount_point, "/run/virtc/shares/virtc-user");
        assert_eq!(
            (share.source.as_str(), share.options.as_slice()),
            ("virtc-user", &["nodev".to_owned()][..])
        );
    }

    #[test]
    fn a_kernel_that_names_no_shares_has_none_to_mount() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(tags(&empty.path().join("virtiofs")).count(), 0);
    }
}
