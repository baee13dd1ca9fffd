//! The host's cgroups of sandboxes and containers.
//!
//! [`Hierarchies`] says what the host has: the controllers of version 1 on hierarchies of their
//! own, version 2, or both (hybrid). A [`CgroupPath`] is a checked `linux.cgroupsPath`, in the
//! form of cgroupfs or of systemd. A [`Cgroup`] is the directory of that path in every hierarchy:
//! it is made, joined, looked at, frozen, killed and removed as one thing, and can be stored, so
//! that any other process opens it again.
//!
//! What holds here:
//!
//! - Only directories that were made here are killed, frozen or removed; what was there before is
//!   joined and left alone. The directory [`DEFAULT_PARENT`] is ours by its name, and a parent that was
//!   made here by a mark on it: whoever leaves it last removes it.
//! - A creation that fails removes what it made.
//! - No symbolic link is followed and no mount is crossed below a hierarchy's root.
//! - Processes are signalled by pidfd, after it was checked again that they are members; never
//!   pid 0, 1 or -1, and never the calling process.
//! - What the host does not count is `None` in [`Stats`], never 0.
//!
//! Nothing here speaks to systemd. With its form of paths (`--systemd-cgroup`) the same
//! directories are made by cgroupfs, which is right where no systemd manages the host. Where one
//! does, it does not know these scopes: it lists none of them, and may turn off controllers for
//! them when it is reloaded.
//!
//! Limits of resources are not set here. Calls block, up to the limits named in this crate:
//! asynchronous callers make them on a blocking thread. `openat2` is needed (Linux 5.6).

#![forbid(unsafe_code)]

mod cgroup;
mod controllers;
mod create;
mod dir;
mod error;
mod freezer;
mod hierarchies;
mod kill;
mod limits;
mod members;
mod membership;
mod mounts;
mod path;
mod place;
mod remove;
mod stats;

pub use cgroup::Cgroup;
pub use error::{Error, Remaining, Result};
pub use hierarchies::{Hierarchies, Hierarchy, Layout, Version};
pub use limits::{FREEZE_LIMIT, KILL_LIMIT, REMOVE_LIMIT};
pub use membership::Membership;
pub use path::{CgroupDriver, CgroupPath, DEFAULT_PARENT, SCOPE_PREFIX};
pub use stats::{BlkioStats, CpuStats, MemoryStats, PidsStats, Stats};
