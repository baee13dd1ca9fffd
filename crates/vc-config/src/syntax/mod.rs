//! What the flags of the command line take, each read into a checked type.
//!
//! Every reader refuses what it does not know by name, never panics, and what it accepts prints
//! again to text that reads back as the same value.

mod capability;
mod env;
mod guest_path;
mod hostname;
mod kernel_param;
mod network;
mod publish;
mod scratch;
mod tmpfs;
mod user;
mod volume;

pub use capability::{CAPABILITIES, Capability, resolve_capabilities};
pub use env::{EnvVar, env_file};
pub use guest_path::GuestPath;
pub use hostname::Hostname;
pub use kernel_param::KernelParam;
pub use network::NetworkSpec;
pub use publish::PublishSpec;
pub use scratch::ScratchSpec;
pub use tmpfs::TmpfsSpec;
pub use user::{UserPart, UserSpec};
pub use volume::VolumeSpec;

use crate::error::Error;

/// Characters of a wrong value that its error repeats.
const QUOTED_CHARS_MAX: usize = 200;

/// The error of `value`, which does not follow the form of a `what`.
fn invalid(
    what: &'static str,
    form: &'static str,
    value: &str,
    reason: impl Into<String>,
) -> Error {
    Error::Syntax {
        what,
        value: value.chars().take(QUOTED_CHARS_MAX).collect(),
        reason: reason.into(),
        form,
    }
}
