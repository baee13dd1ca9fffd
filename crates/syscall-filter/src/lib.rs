//! Filters of system calls: from the words of the OCI specification (`linux.seccomp`) to what seccomp(2)
//! takes.
//!
//! The host makes them for the guest: a processor that is emulated takes more than a hundred milliseconds for
//! the usual one, the host's own some seven. The guest's agent makes those of host sides that send words.

mod compile;
mod error;
mod filter;

pub use error::{Error, Result};
pub use filter::SyscallFilter;
