//! What a process sees as its root, as plain data.

use serde::{Deserialize, Serialize};

/// Bytes that the tree's own tmpfs holds by default: names, links and small files only.
const TREE_BYTES_DEFAULT: u64 = 1 << 20;

/// A root made of a fresh tmpfs and what is mounted in it, in a mount namespace of its own.
///
/// The entries are made in their order. A directory that an entry's path needs is made when it
/// lies on one of the tree's own file systems; nothing is ever made below a bind mount.
///
/// ```
/// use vc_launch::{BindSource, MountTree};
///
/// let tree = MountTree::new()
///     .dir("share", 0o755)
///     .bind("share/usr", BindSource(0), true)
///     .symlink("share/bin", "usr/bin");
/// assert_eq!(tree.entries.len(), 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MountTree {
    /// What is in the tree.
    pub entries: Vec<TreeEntry>,
    /// Bytes that the tmpfs holds.
    pub bytes: u64,
    /// Whether the tmpfs is read-only once it is built.
    pub read_only: bool,
}

/// One place in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Where: relative to the tree's root, without `.` and `..`.
    pub at: String,
    /// What is there.
    pub node: TreeNode,
}

/// The index of a descriptor passed as
/// [`DescriptorUse::MountSource`](crate::DescriptorUse::MountSource): a file or directory opened
/// with `O_PATH` by the caller, so that links on the way to it were followed once, there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BindSource(pub u32);

/// What is at a place of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TreeNode {
    /// An empty directory.
    Dir {
        /// Its mode, whatever the mask is.
        mode: u32,
    },
    /// A small file.
    File {
        /// What it holds.
        content: String,
        /// Its mode, whatever the mask is.
        mode: u32,
    },
    /// A symbolic link; its target is text and is not looked at.
    Symlink {
        /// Where it points to.
        target: String,
    },
    /// A tmpfs of its own.
    Tmpfs {
        /// Bytes that it holds.
        bytes: u64,
        /// The mode of its root.
        mode: u32,
    },
    /// A file or directory of the caller's namespace, without set-id and device files.
    Bind {
        /// Which one.
        source: BindSource,
        /// Whether what is mounted below it comes too.
        recursive: bool,
        /// Whether it is read-only, with all that is mounted below it by then.
        read_only: bool,
        /// What becomes of mounts of the caller's namespace below it from then on.
        propagation: Propagation,
    },
    /// The process's own `/proc/self/fd`, and nothing else of proc.
    OwnDescriptors,
}

/// What becomes of mounts that are made and removed below the source of a bind once it is bound, see
/// mount_namespaces(7). Nothing ever goes the other way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Propagation {
    /// Nothing.
    #[default]
    Private,
    /// They come and go below the bind too, with the attributes that they have at the source.
    Slave,
}

impl MountTree {
    /// An empty root, read-only once it is built.
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
            bytes: TREE_BYTES_DEFAULT,
            read_only: true,
        }
    }

    /// Adds `node` at `at`.
    #[must_use]
    pub fn with(mut self, at: impl Into<String>, node: TreeNode) -> Self {
        self.entries.push(TreeEntry {
            at: at.into(),
            node,
        });
        self
    }

    /// Adds an empty directory.
    #[must_use]
    pub fn dir(self, at: impl Into<String>, mode: u32) -> Self {
        self.with(at, TreeNode::Dir { mode })
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, at: impl Into<String>, target: impl Into<String>) -> Self {
        let target = target.into();
        self.with(at, TreeNode::Symlink { target })
    }

    /// Adds a bind mount without what is mounted below its source.
    #[must_use]
    pub fn bind(self, at: impl Into<String>, source: BindSource, read_only: bool) -> Self {
        self.with(
            at,
            TreeNode::Bind {
                source,
                recursive: false,
                read_only,
                propagation: Propagation::Private,
            },
        )
    }
}

impl Default for MountTree {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeEntry {
    /// The names on the way to it.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.at.split('/').filter(|name| !name.is_empty())
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.names().next().is_none() {
            return Err("it is the root itself");
        }
        if self.at.starts_with('/') {
            return Err("it is not relative");
        }
        if self.names().any(|name| name == "." || name == "..") {
            return Err("it has . or .. in it");
        }
        if self.at.contains('\0') {
            return Err("it has a zero byte in it");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_relative_and_plain() {
        let at = |at: &str| TreeEntry {
            at: at.into(),
            node: TreeNode::Dir { mode: 0o755 },
        };
        for good in ["a", "a/b", "a//b", "...", "a/.b"] {
            assert!(at(good).check().is_ok(), "{good}");
        }
        for bad in ["", "/", "/a", ".", "a/..", "../a", "a/./b", "a\0"] {
            assert!(at(bad).check().is_err(), "{bad}");
        }
    }
}
