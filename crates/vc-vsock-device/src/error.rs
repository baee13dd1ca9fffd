use std::io;

use vc_types::Hint;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A reason why the device could not start or had to end.
///
/// Nothing that a guest or a host program does is an error of the device: it ends a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A context id that virtio reserves or that does not fit.
    #[error("{cid} cannot be the context id of a guest")]
    InvalidCid {
        /// What was given.
        cid: u64,
    },
    /// A system call on one of the device's own descriptors failed.
    #[error("cannot {attempt}")]
    System {
        /// What was tried.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Too few descriptors are allowed for even one connection.
    #[error("the limit of {limit} open descriptors leaves none for connections")]
    DescriptorLimit {
        /// The process's limit.
        limit: u64,
    },
    /// The VMM did not connect in time.
    #[error("no VMM connected to the vhost-user socket within {limit_s} s")]
    VmmMissing {
        /// The limit that passed.
        limit_s: i64,
    },
    /// The thread that does the work panicked, which is a defect of the device.
    #[error("the vsock device's worker failed")]
    Worker,
    /// The vhost-user protocol with the VMM failed.
    #[error("the vhost-user device failed: {reason}")]
    VhostUser {
        /// What the backend says; its error type keeps no source.
        reason: String,
    },
}

impl Error {
    pub(crate) fn system(attempt: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |source| Self::System {
            attempt,
            source: source.into(),
        }
    }

    pub(crate) fn vhost_user(source: &vhost_user_backend::Error) -> Self {
        Self::VhostUser {
            reason: source.to_string(),
        }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::InvalidCid { .. } => Some("use a number from 3 to 4294967294".to_owned()),
            Self::DescriptorLimit { .. } => Some("raise the limit `nofile`".to_owned()),
            Self::VmmMissing { .. } => Some("look at the VMM's log for why it ended".to_owned()),
            _ => None,
        }
    }
}
