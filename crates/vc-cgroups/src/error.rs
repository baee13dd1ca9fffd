use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vc_types::Hint;

use crate::limits::{PATH_BYTES_MAX, REMOVE_LIMIT};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a cgroup could not be found, made, used or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path that cannot name a cgroup of ours.
    #[error("cgroup path {path:?} is not valid: {reason}")]
    InvalidPath {
        /// What was given.
        path: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The host has no cgroup file system mounted.
    #[error("no cgroup hierarchy is mounted")]
    NoHierarchy,
    /// What a mount was said to be is no cgroup file system, or not the right one.
    #[error("{} is not the mount point of a cgroup file system", path.display())]
    NotMounted {
        /// The place.
        path: PathBuf,
    },
    /// A relative path was given, and the caller's own cgroup is not below the mount.
    #[error(
        "cannot find the own cgroup below {}, to which the path {path} is relative",
        mount_point.display()
    )]
    OwnCgroupHidden {
        /// The mount point of the hierarchy.
        mount_point: PathBuf,
        /// The relative path.
        path: String,
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
    /// A file of the kernel has other content than it is known to have.
    #[error("{} has an unexpected content: {found:?}", path.display())]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// The part that is not understood.
        found: String,
    },
    /// More of something than is read.
    #[error("{} has more than {max} {what}", path.display())]
    TooMany {
        /// Where.
        path: PathBuf,
        /// Bytes, cgroups or levels.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// The cgroup's directory is not there any more.
    #[error("the cgroup {} does not exist", path.display())]
    Gone {
        /// Its directory.
        path: PathBuf,
    },
    /// The cgroup was there before, and may hold processes of others.
    #[error("cannot {attempt} the cgroup {path}: it was not made by virtcontainers")]
    NotOurs {
        /// `freeze`, `thaw` or `kill the processes of`.
        attempt: &'static str,
        /// Its path.
        path: String,
    },
    /// Neither the freezer of version 1 nor version 2 is there.
    #[error("cannot {attempt} the cgroup {path}: the host has no freezer")]
    NoFreezer {
        /// `freeze` or `thaw`.
        attempt: &'static str,
        /// Its path.
        path: String,
    },
    /// The calling process would freeze itself.
    #[error("cannot freeze the cgroup {path}: the calling process is in it")]
    CallerInside {
        /// Its path.
        path: String,
    },
    /// The kernel did not freeze or thaw all processes in time.
    #[error("cannot {attempt} the cgroup {} within {limit:?}", path.display())]
    FreezerTimedOut {
        /// `freeze` or `thaw`.
        attempt: &'static str,
        /// Its directory.
        path: PathBuf,
        /// The limit that passed.
        limit: Duration,
    },
    /// Processes of the cgroup still live, though they were killed.
    #[error("processes of the cgroup {path} still live {limit:?} after they were killed: {pids:?}")]
    StillAlive {
        /// Its path.
        path: String,
        /// Their pids.
        pids: BTreeSet<i32>,
        /// [`KILL_LIMIT`](crate::KILL_LIMIT).
        limit: Duration,
    },
    /// A process ended before it was added.
    #[error("cannot add process {pid} to the cgroup {path}: it has ended")]
    Ended {
        /// The process.
        pid: i32,
        /// The cgroup.
        path: String,
    },
    /// Directories of the cgroup stay.
    #[error("cannot remove the cgroup {path}: {}", join(remaining))]
    Remains {
        /// Its path.
        path: String,
        /// What stays, and why.
        remaining: Vec<Remaining>,
    },
}

/// A directory that could not be removed.
#[derive(Debug)]
pub struct Remaining {
    /// The directory.
    pub path: PathBuf,
    /// Processes in it or below it.
    pub pids: BTreeSet<i32>,
    /// The system's answer; "busy" where processes or other cgroups are in it.
    pub source: io::Error,
}

impl fmt::Display for Remaining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stays", self.path.display())?;
        if self.pids.is_empty() {
            write!(f, " ({})", self.source)
        } else {
            write!(
                f,
                " (processes {:?} did not end within {REMOVE_LIMIT:?})",
                self.pids
            )
        }
    }
}

fn join(remaining: &[Remaining]) -> String {
    let texts: Vec<_> = remaining.iter().map(ToString::to_string).collect();
    texts.join("; ")
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

/// Makes an [`Error::InvalidPath`], in which an absurd length is not repeated.
pub(crate) fn invalid(path: &str, reason: &'static str) -> Error {
    Error::InvalidPath {
        path: path.chars().take(PATH_BYTES_MAX).collect(),
        reason,
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoHierarchy => Some("mount one: mount -t cgroup2 none /sys/fs/cgroup".to_owned()),
            Self::OwnCgroupHidden { .. } => Some("give an absolute cgroup path".to_owned()),
            Self::NotOurs { .. } => {
                Some("end its processes by their own means, or choose another path".to_owned())
            }
            Self::FreezerTimedOut { path, .. } => Some(format!(
                "look for processes in state D: {}",
                path.join("cgroup.procs").display()
            )),
            Self::StillAlive { .. } => {
                Some("look at what they wait for: cat /proc/PID/stack".to_owned())
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some("run it as root".to_owned()),
                io::ErrorKind::ReadOnlyFilesystem => {
                    Some("mount the cgroup file systems writable".to_owned())
                }
                io::ErrorKind::Unsupported => {
                    Some("Linux 5.6 or later is needed, with openat2 allowed".to_owned())
                }
                _ => None,
            },
            _ => None,
        }
    }
}
