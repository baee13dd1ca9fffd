//! What is in a share, as plain data and opened sources.

use super::rights::Rights;
use super::source::Source;

/// What a share serves.
///
/// ```
/// use vc_launch::User;
/// use vc_storage::{Access, Rights, SharePlan, Source};
///
/// let user = User { uid: 1000, gid: 1000, groups: Vec::new() };
/// let mut plan = SharePlan::new("the user's files", Rights::Invoker(user));
/// plan.add("cwd", Source::open("/usr".as_ref())?, Access::ReadOnly);
/// assert!(!plan.is_writable());
/// # Ok::<(), vc_storage::Error>(())
/// ```
#[derive(Debug)]
pub struct SharePlan {
    /// What messages call it.
    pub name: String,
    /// By which the guest mounts it, where the VMM asks the process for that instead of saying it.
    pub tag: Option<String>,
    /// With whose rights it is read and written.
    pub rights: Rights,
    /// What is in it, made in this order.
    pub entries: Vec<ShareEntry>,
    /// How long the guest may believe what it has read.
    pub cache: CachePolicy,
    /// Whether extended attributes are passed. Roots that are written need them; each asks the
    /// host once more for every file that is written or executed.
    pub extended_attributes: bool,
    /// Whether more comes while it serves, see [`RunningShare`](crate::RunningShare): it gets the
    /// rights that writing needs, since what comes may be writable.
    pub grows: bool,
}

/// One place in a share.
#[derive(Debug)]
pub struct ShareEntry {
    /// Relative to the share's root, without `.` and `..`.
    pub at: String,
    /// What is there.
    pub node: ShareNode,
}

/// What is at a place of a share.
#[derive(Debug)]
pub enum ShareNode {
    /// A file or directory of the host.
    Source {
        /// Which one.
        source: Source,
        /// Whether it can be written.
        access: Access,
        /// Whether what is mounted below it comes too.
        recursive: bool,
    },
    /// An empty directory that nobody writes to.
    Dir {
        /// Its mode.
        mode: u32,
    },
    /// A symbolic link.
    Symlink {
        /// Its text.
        target: String,
    },
}

/// What may be done with a source. Read-only is an attribute of the mount on the host, so a guest
/// has no say in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// How long the guest may believe what it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePolicy {
    /// Names and attributes for a second, and content until size or time of change differ: the host
    /// may change them.
    Checked,
    /// For good: for what does not change while the guest lives. Directories are listed without
    /// looking at every file in them.
    Always,
}

impl SharePlan {
    /// An empty share.
    pub fn new(name: impl Into<String>, rights: Rights) -> Self {
        Self {
            name: name.into(),
            tag: None,
            rights,
            entries: Vec::new(),
            cache: CachePolicy::Checked,
            extended_attributes: false,
            grows: false,
        }
    }

    /// Adds a file or directory at `at`, with what is mounted below it.
    pub fn add(&mut self, at: impl Into<String>, source: Source, access: Access) {
        self.push(
            at,
            ShareNode::Source {
                source,
                access,
                recursive: true,
            },
        );
    }

    /// Adds any entry.
    pub fn push(&mut self, at: impl Into<String>, node: ShareNode) {
        self.entries.push(ShareEntry {
            at: at.into(),
            node,
        });
    }

    /// Whether anything in it can be written, now or later.
    pub fn is_writable(&self) -> bool {
        self.grows
            || self.entries.iter().any(|entry| {
                matches!(
                    entry.node,
                    ShareNode::Source {
                        access: Access::ReadWrite,
                        ..
                    }
                )
            })
    }
}
