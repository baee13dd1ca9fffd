//! Changes of the mount tree that a running process sees.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::launcher::spawn_step;
use crate::mount_tree::Propagation;
use crate::process::ProcessEnd;
use crate::wire::{ANSWER_BYTES_MAX, Failure, send_order};

/// How long a change may take. A busy machine needs some tens of milliseconds.
pub const TREE_CHANGE_LIMIT: Duration = Duration::from_secs(10);

/// What is to be added to the mount tree of a running process, and taken out of it.
///
/// The process was started with a [`MountTree`](crate::MountTree). Places are named as there:
/// relative to the tree's root. Only names that the tree's own tmpfs holds are made or removed,
/// and nothing is followed on the way to them.
#[derive(Debug, Default)]
pub struct TreeChange {
    /// Files and directories that are bound.
    pub add: Vec<(Addition, OwnedFd)>,
    /// Places of what was added before. One that is not there is passed over.
    pub remove: Vec<String>,
}

/// Something that is bound into a tree: an opened file or directory of the caller's namespace,
/// without set-id and device files, with all that is mounted below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addition {
    /// Where; its directory exists, itself does not.
    pub at: String,
    /// Whether it is read-only, with all that is mounted below it by then.
    pub read_only: bool,
    /// What becomes of mounts of the caller's namespace below it from then on.
    pub propagation: Propagation,
}

/// What the step is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ChangeOrder {
    /// The source of each is the descriptor of the same place, after the process's pidfd.
    pub(crate) add: Vec<Addition>,
    pub(crate) remove: Vec<String>,
}

impl TreeChange {
    /// Makes the change in the mount namespace of the process behind `pidfd`. `program` is what
    /// runs [`internal_change_tree`](crate::internal_change_tree) when its arguments are
    /// `internal change-tree`, and `name` is what messages call the process.
    ///
    /// What was added before an error stays; the caller removes it by its places. It blocks, at
    /// most for [`TREE_CHANGE_LIMIT`].
    ///
    /// # Errors
    ///
    /// [`Error::TreeChange`] with the step that failed; [`Error::Spawn`], [`Error::Transfer`] and
    /// [`Error::TimedOut`] when the step does not run.
    pub fn apply(self, program: &Path, name: &str, pidfd: BorrowedFd<'_>) -> Result<()> {
        let transfer = |source| Error::Transfer {
            name: name.into(),
            source,
        };
        let (ours, theirs) = UnixStream::pair().map_err(transfer)?;
        // Ends and reaps it, whatever happens here.
        let mut process = spawn_step(program, "change-tree", name, theirs)?;
        let (add, sources): (Vec<_>, Vec<_>) = self.add.into_iter().unzip();
        let remove = self.remove;
        let mut descriptors = vec![pidfd];
        descriptors.extend(sources.iter().map(AsFd::as_fd));
        send_order(&ours, &ChangeOrder { add, remove }, &descriptors).map_err(transfer)?;
        match answer(ours).map_err(transfer)? {
            Some(answer) if answer.is_empty() => match process.wait_timeout(TREE_CHANGE_LIMIT)? {
                Some(ProcessEnd::Code(0)) => Ok(()),
                end => Err(Error::EndedEarly {
                    name: name.into(),
                    end: end.map_or_else(|| "it still runs".into(), |end| end.to_string()),
                }),
            },
            Some(answer) => {
                let failure: Failure = serde_json::from_slice(&answer)
                    .map_err(|error| transfer(std::io::Error::other(error)))?;
                Err(Error::TreeChange {
                    name: name.into(),
                    step: failure.step,
                    object: failure.object,
                    source: std::io::Error::from_raw_os_error(failure.errno),
                })
            }
            None => Err(Error::TimedOut {
                name: name.into(),
                limit: TREE_CHANGE_LIMIT,
            }),
        }
    }
}

/// What the step says until it ends: nothing when all went well. None when it took too long.
fn answer(mut socket: UnixStream) -> std::io::Result<Option<Vec<u8>>> {
    let end = Instant::now() + TREE_CHANGE_LIMIT;
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(Some(said)),
            Ok(length) if said.len() + length > ANSWER_BYTES_MAX => {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            Ok(length) => said.extend_from_slice(&buffer[..length]),
            Err(error) => match error.kind() {
                std::io::ErrorKind::WouldBlock => return Ok(None),
                std::io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}
