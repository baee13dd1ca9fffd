use std::io;
use std::path::PathBuf;
use std::time::Duration;

use vc_types::{ByteSize, Hint, ProcessIdentity};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a share or a writable layer could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What is to be shared cannot be opened. It is never created.
    #[error("cannot open {} to share it", path.display())]
    Source {
        /// As the user wrote it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is to be shared is neither a file nor a directory.
    #[error("cannot share {}: it is neither a file nor a directory", path.display())]
    SourceKind {
        /// As the user wrote it.
        path: PathBuf,
    },
    /// A plan that contradicts itself.
    #[error("cannot share {at:?}: {reason}")]
    Plan {
        /// The place in the share.
        at: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// This project's own program, which serves shares too, cannot be opened.
    #[error("cannot open {} to serve a share", path.display())]
    Program {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket between a share and the VMM could not be made.
    #[error("cannot make the socket of a share in {}", directory.display())]
    Socket {
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process of a share that was to be changed has ended.
    #[error("cannot change the share of process {process}")]
    ShareEnded {
        /// Which process.
        process: ProcessIdentity,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process did not start, or what it sees could not be changed.
    #[error(transparent)]
    Launch(#[from] vc_launch::Error),
    /// The file of the scratch disk could not be made.
    #[error("cannot make a scratch disk of {size} in {}", directory.display())]
    Scratch {
        /// Where.
        directory: PathBuf,
        /// How large it was to be.
        size: ByteSize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something could not be done with a scratch disk.
    #[error("cannot {attempt} the scratch disk")]
    ScratchContent {
        /// What was tried.
        attempt: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is not enough room for a scratch disk.
    #[error("cannot make a scratch disk in {}: only {free} are free", directory.display())]
    ScratchSpace {
        /// Where.
        directory: PathBuf,
        /// What is left there.
        free: ByteSize,
    },
    /// The scratch disk could not be formatted.
    #[error("cannot format the scratch disk: {program} ended with {end}{output}")]
    Format {
        /// Which program.
        program: String,
        /// How it ended.
        end: String,
        /// What it printed.
        output: String,
    },
    /// Formatting took too long, and was ended.
    #[error("formatting the scratch disk took longer than {limit:?}")]
    FormatTimedOut {
        /// [`FORMAT_LIMIT`](crate::FORMAT_LIMIT).
        limit: Duration,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Source { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("make it first: a missing source is not created".into())
            }
            Self::ScratchSpace { directory, .. } => Some(format!(
                "make room in {}, or keep the writable layer in the guest's memory with --scratch tmpfs",
                directory.display()
            )),
            Self::Launch(error) => error.hint(),
            _ => None,
        }
    }
}
