//! What a sandbox has of file systems: shares with the host, and room to write.
//!
//! A [`Share`] is one process (`vc_share_device`) in a mount namespace of its own. What it serves is a
//! tree of bind mounts in a fresh tmpfs, so that there is nothing else for a guest to reach,
//! whatever it asks for. A [`SharePlan`] says what is in the tree and with which [`Rights`] it is
//! read; [`host_system`](host_system::plan) is the plan of the host's own system as a root.
//!
//! A [`ScratchDisk`] is the guest's writable layer: a sparse file without a name, formatted while
//! the VM boots, or a copy of what a template has. [`ScratchTmpfs`] is the same in the guest's memory.

#![forbid(unsafe_code)]

mod error;
mod scratch;
mod share;

pub use error::{Error, Result};
pub use scratch::{FORMAT_LIMIT, Formatter, Formatting, ScratchDisk, ScratchTmpfs};
pub use share::{
    Access, CachePolicy, Rights, RunningShare, Share, ShareEntry, ShareNode, SharePlan, Slave,
    Source, SourceKind, host_system,
};
