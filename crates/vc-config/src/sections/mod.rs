//! The sections, a file each.

mod factory;
mod guest;
mod limits;
mod network;
mod qemu;
mod runtime;
mod scratch;
mod share;
mod vm;

pub use factory::Factory;
pub use guest::Guest;
pub use limits::{Limits, Millis};
pub use network::{Interworking, Network, Physical, UserBackend, Vhost};
pub use qemu::{Qemu, TcgThreads};
pub use runtime::{Accelerator, Runtime, SandboxCgroup};
pub use scratch::{Scratch, ScratchKind};
pub use share::{Share, ShareCache};
pub use vm::{Demand, Vm};

use std::path::{Path, PathBuf};

/// What was set, whether it exists or not (its user says so), or the first candidate that exists.
fn find(set: Option<&Path>, candidates: &[&str]) -> Option<PathBuf> {
    let exists = || candidates.iter().map(Path::new).find(|path| path.exists());
    set.or_else(exists).map(Path::to_owned)
}
