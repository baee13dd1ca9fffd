use std::io;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A reason why the device could not start or had to end. Nothing that a guest does is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument that is not one of the device's.
    #[error("{argument:?} is no argument of the share device")]
    Argument {
        /// Which one.
        argument: String,
    },
    /// An argument is missing.
    #[error("the share device needs {argument}")]
    Missing {
        /// Which one.
        argument: &'static str,
    },
    /// Too few descriptors are allowed for even one file of the guest.
    #[error("the limit of {limit} open descriptors leaves none for the guest")]
    DescriptorLimit {
        /// The process's limit.
        limit: u64,
    },
    /// The system calls could not be restricted.
    #[error("cannot restrict the system calls: {reason}")]
    Seccomp {
        /// Why not.
        reason: String,
    },
    /// The shared directory cannot be served.
    #[error("cannot serve {directory}")]
    Directory {
        /// Which one.
        directory: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The device could not be made, or its connection broke.
    #[error("cannot {attempt}: {reason}")]
    Device {
        /// What was tried.
        attempt: &'static str,
        /// Why it failed.
        reason: String,
    },
}
