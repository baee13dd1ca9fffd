//! The shares of a template, mounted before anybody serves them: its clones have them as they are.

use std::fs;
use std::path::{Path, PathBuf};

use agent_protocol::storages::share;

use crate::error::{Attempt as _, Result};
use crate::sandbox::Sandbox;

/// Where our own kernel names the shares that a machine has, each in a directory of its own.
const SHARES_OF_KERNEL: &str = "/sys/fs/virtiofs";

impl Sandbox {
    /// Mounts the shares that the machine has. The kernel asks of a share only what it can do, and does not
    /// wait for the answer: that comes from whoever serves the clone's. Until then nobody may look at one,
    /// unmount it, or have everything written back. Where one cannot be mounted now, that is tried again when
    /// the host asks for it.
    pub(crate) async fn mount_own_shares(&self) {
        // Each by itself: those that are mounted stay.
        for tag in tags(Path::new(SHARES_OF_KERNEL)) {
            if let Err(error) = self.add_storages(vec![share(&tag)]).await {
                tracing::warn!("{}", error.chain());
            }
        }
    }
}

/// Looks at shares, which waits for whoever serves them.
pub(crate) fn look_at(shares: &[PathBuf]) -> Result<()> {
    for share in shares {
        fs::metadata(share).attempt(|| format!("look at the share {}", share.display()))?;
    }
    Ok(())
}

/// The tags of the shares that the machine has, as far as the kernel names them.
fn tags(named: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(named).into_iter().flatten();
    entries.filter_map(|entry| {
        let tag = fs::read_to_string(entry.ok()?.path().join("tag")).ok()?;
        Some(tag.trim_end().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_known_by_its_tag() {
        let named = tempfile::tempdir().unwrap();
        fs::create_dir(named.path().join("0")).unwrap();
        fs::write(named.path().join("0/tag"), "virtc-user\n").unwrap();
        // One that the kernel is about to forget.
        fs::create_dir(named.path().join("1")).unwrap();
        let tags: Vec<_> = tags(named.path()).collect();
        assert_eq!(tags, ["virtc-user"]);
    }

    #[test]
    fn a_kernel_that_names_no_shares_has_none_to_mount() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(tags(&empty.path().join("virtiofs")).count(), 0);
    }
}
