use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vc_types::{Hint, SandboxId};

use crate::record::Verb;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a state could not be read, changed, made or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such sandbox.
    #[error("sandbox \"{id}\" does not exist")]
    NotFound {
        /// Its id.
        id: SandboxId,
    },
    /// There is such a sandbox already.
    #[error("sandbox \"{id}\" already exists")]
    Exists {
        /// Its id.
        id: SandboxId,
    },
    /// Its state cannot be read.
    #[error("the state of sandbox \"{id}\" in {} cannot be read", path.display())]
    Broken {
        /// The sandbox.
        id: SandboxId,
        /// The state file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Unreadable,
    },
    /// A system call failed.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The state's lock was not free in time.
    #[error(
        "the lock of sandbox \"{id}\" was not free within {} ms (limits.lock_ms)",
        limit.as_millis()
    )]
    Locked {
        /// The sandbox.
        id: SandboxId,
        /// The limit that passed.
        limit: Duration,
    },
    /// Somebody else does something with the sandbox.
    #[error("sandbox \"{id}\" is busy: process {pid} does \"{verb}\", step \"{step}\"")]
    Busy {
        /// The sandbox.
        id: SandboxId,
        /// What is done.
        verb: Verb,
        /// Who does it.
        pid: i32,
        /// How far it came.
        step: String,
    },
    /// The operation was taken over: its owner rolls back.
    #[error("the operation \"{verb}\" on sandbox \"{id}\" was taken over by another one")]
    TakenOver {
        /// The sandbox.
        id: SandboxId,
        /// The operation that ends.
        verb: Verb,
    },
    /// The state would be too large to be read again.
    #[error("the state of sandbox \"{id}\" is too large: {bytes} bytes, at most {max}")]
    TooLarge {
        /// The sandbox.
        id: SandboxId,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The state could not be written as JSON.
    #[error("the state of sandbox \"{id}\" cannot be written as JSON")]
    Encode {
        /// The sandbox.
        id: SandboxId,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Something is mounted where a directory was to be removed.
    #[error("cannot remove {}: something is mounted on it", path.display())]
    Mounted {
        /// The place.
        path: PathBuf,
    },
    /// The root belongs to somebody else, or others may write to it.
    #[error("the state root {} is not safe: {reason}", path.display())]
    UnsafeRoot {
        /// The root.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The calling process cannot be identified.
    #[error("cannot identify the calling process")]
    Identity(#[source] vc_types::Error),
}

/// Why the content of a state file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// It is not there, though the sandbox's directory is.
    #[error("it is missing")]
    Missing,
    /// It could not be read.
    #[error("it could not be read")]
    Io(#[source] io::Error),
    /// It is larger than a state may be.
    #[error("it has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// It is no JSON, or has other fields than a state of its version.
    #[error("it is not valid")]
    Json(#[source] serde_json::Error),
    /// A program that is newer than this one wrote it.
    #[error("it has version {version}, this program knows versions up to {known}")]
    Newer {
        /// The file's version.
        version: u32,
        /// The newest that is known.
        known: u32,
    },
    /// It has a version that never was.
    #[error("its version {version} never existed")]
    NoVersion {
        /// The file's version.
        version: u32,
    },
    /// It is another sandbox's.
    #[error("it says that it is of sandbox \"{other}\"")]
    OtherSandbox {
        /// The id in the file.
        other: SandboxId,
    },
}

/// Makes an [`Error::Io`] of a failed call.
pub(crate) fn io<E: Into<io::Error>>(
    attempt: &'static str,
    path: impl AsRef<Path>,
) -> impl FnOnce(E) -> Error {
    let path = path.as_ref().to_owned();
    move |source| Error::Io {
        attempt,
        path,
        source: source.into(),
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => Some("`virtc list` shows the sandboxes there are".to_owned()),
            Self::Exists { id } => Some(format!(
                "choose another name, or remove it: virtc delete {id}"
            )),
            Self::Broken {
                source: Unreadable::Newer { .. },
                ..
            } => Some("use the newer virtc that wrote it".to_owned()),
            Self::Broken { id, .. } => Some(format!(
                "remove what can be found of it: virtc delete --force {id}"
            )),
            Self::Busy { id, .. } => Some(format!(
                "wait for it, or take over: virtc delete --force {id}"
            )),
            Self::Locked { .. } => {
                Some("look for a stopped process that holds its lock file".to_owned())
            }
            Self::Mounted { path } => Some(format!("unmount it: umount {}", path.display())),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => Some("make space on that file system".to_owned()),
                io::ErrorKind::PermissionDenied => Some("run it as root".to_owned()),
                _ => None,
            },
            _ => None,
        }
    }
}
