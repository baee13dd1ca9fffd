use std::io;

use libseccomp::error::SeccompError;

use crate::filter::INSTRUCTIONS_MAX;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libseccomp does not make it.
    #[error("libseccomp does not make it")]
    Library {
        /// Why.
        #[source]
        source: SeccompError,
    },
    /// What libseccomp has made cannot be had.
    #[error("cannot read what libseccomp has made")]
    Read {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No kernel takes this as a program.
    #[error(
        "a program of {bytes} bytes is none for the kernel, which takes {INSTRUCTIONS_MAX} instructions"
    )]
    BadProgram {
        /// How long it is.
        bytes: usize,
    },
    /// An error number, or a number for a tracer, does not fit into the kernel's 16 bits.
    #[error("errnoRet {number} is out of range (at most 65535)")]
    ErrnoOutOfRange {
        /// The number.
        number: u32,
    },
    /// Somebody else would have to decide about calls.
    #[error("SCMP_ACT_NOTIFY is not supported: nobody in the guest would answer")]
    Notify,
}
