//! The directory of a cgroup in one hierarchy.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::hierarchies::{Hierarchy, Version};
use crate::path::{CgroupPath, DEFAULT_PARENT};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) hierarchy: Hierarchy,
    /// From the mount point of the hierarchy on.
    pub(crate) path: CgroupPath,
    /// Which directories of the path are ours, by their depth: the topmost has depth 1.
    pub(crate) made: BTreeSet<usize>,
}

impl Place {
    /// The depth of the cgroup itself.
    pub(crate) fn depth(&self) -> usize {
        self.path.components().len()
    }

    /// Whether the cgroup itself was made here.
    pub(crate) fn is_ours(&self) -> bool {
        self.made.contains(&self.depth())
    }

    /// Whether the directory of this depth is ours by its name, whoever made it.
    pub(crate) fn is_default_parent(&self, depth: usize) -> bool {
        let components = self.path.components();
        depth == 1 && components.len() > 1 && components[0] == DEFAULT_PARENT
    }

    /// The path of the directory of this depth.
    pub(crate) fn directory(&self, depth: usize) -> PathBuf {
        self.hierarchy.mount_point.join(self.below(depth))
    }

    /// The root of the hierarchy.
    pub(crate) fn root(&self) -> Result<Dir> {
        Dir::open_mount(&self.hierarchy.mount_point, self.hierarchy.version)
    }

    /// The directory of this depth, or nothing when it is not there.
    pub(crate) fn open(&self, depth: usize) -> Result<Option<Dir>> {
        let root = self.root()?;
        if depth == 0 {
            return Ok(Some(root));
        }
        root.open(self.below(depth).as_str())
    }

    /// The cgroup itself, or nothing when it is not there.
    pub(crate) fn leaf(&self) -> Result<Option<Dir>> {
        self.open(self.depth())
    }

    /// The cgroup itself, which has to be there.
    pub(crate) fn existing(&self) -> Result<Dir> {
        self.leaf()?.ok_or_else(|| Error::Gone {
            path: self.directory(self.depth()),
        })
    }

    pub(crate) fn is_v2(&self) -> bool {
        self.hierarchy.version == Version::V2
    }

    fn below(&self, depth: usize) -> String {
        self.path.components()[..depth].join("/")
    }
}
