//! The state of sandboxes on disk.
//!
//! Every sandbox has a directory `<root>/<id>/` with its state file, its lock, and whatever its
//! owner puts beside them. [`Store`] makes, finds and removes these directories; [`SandboxDir`]
//! reads one state and changes it under the *state lock*, which is held for one read, change and
//! write and never longer. What takes longer is an *operation*: a record in the state that says
//! who does what and how far it came ([`OperationGuard`]), which others see, wait for, or take
//! over.
//!
//! What holds here:
//!
//! - A reader takes no lock and writes nothing; it sees the state before a change or after it.
//! - A write that fails leaves the state as it was.
//! - Nothing that cannot be read is passed over in silence: [`Store::list`] names it.
//! - A directory appears with its state in it, and disappears by one rename.
//!
//! Calls block, up to the limits of [`StoreLimits`]: asynchronous callers make them on a blocking
//! thread.

#![forbid(unsafe_code)]

mod document;
mod error;
mod failure;
mod limits;
mod lock;
mod operation;
mod record;
mod remove;
mod replace;
mod sandbox_dir;
mod stale;
mod store;
mod take_over;
mod time;
mod version;
mod view;

pub use document::Document;
pub use error::{Error, Result, Unreadable};
pub use failure::{FailureRecord, FailureRecords};
pub use limits::StoreLimits;
pub use operation::{OperationGuard, WhenBusy};
pub use record::{ContainerRecord, DeviceProcess, Operation, SandboxRecord, Verb};
pub use sandbox_dir::SandboxDir;
pub use stale::{Stale, StaleReason};
pub use store::{Listed, Store};
pub use time::UnixMillis;
pub use version::STATE_VERSION;
pub use view::{Activity, ContainerView, View};
