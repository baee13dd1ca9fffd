//! Copying into and out of a container, by a process of the container.
//!
//! It is a copy of the process that makes it, and executes nothing. It sees what the container
//! sees and has its cgroup and its filter of system calls; the container's processes see neither
//! its memory nor the agent's program behind it.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, RawFd};
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};
use rustix::stdio::{stdin, stdout};
use serde::{Deserialize, Serialize};
use tree_archive::{Destination, Error, Incoming, Pack, Rules, unpack};

/// Exit code of a copy that failed.
const FAILED: i32 = 1;

/// The first descriptor after the standard three.
const FIRST_OF_OURS: u32 = 3;

/// What is copied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Copy {
    /// A path to stdout, as an archive.
    Out(Pack),
    /// An archive from stdin to a path.
    In {
        path: PathBuf,
        incoming: Incoming,
        owners: bool,
    },
}

impl Copy {
    /// Copies, says on stderr why that is impossible, and gives the exit code.
    pub(super) fn run(&self) -> i32 {
        umask(Mode::empty());
        let copied = match self {
            Self::Out(pack) => own(stdout(), "write").and_then(|stdout| pack.write(stdout)),
            Self::In {
                path,
                incoming,
                owners,
            } => {
                // What the host sends is trusted with every bit.
                let rules = Rules {
                    owners: *owners,
                    set_id: true,
                };
                Destination::open(path, incoming).and_then(|destination| {
                    let Destination { directory, names } = &destination;
                    unpack(own(stdin(), "read")?, directory.as_fd(), names, rules)
                })
            }
        };
        match copied {
            Ok(()) => 0,
            Err(error) => {
                // Nobody reads: then nobody wants to know.
                let _ = writeln!(std::io::stderr(), "{}", error.chain());
                FAILED
            }
        }
    }
}

/// A standard stream without the buffer and the lines of the standard library.
fn own(stream: BorrowedFd<'_>, attempt: &'static str) -> tree_archive::Result<File> {
    match stream.try_clone_to_owned() {
        Ok(stream) => Ok(File::from(stream)),
        Err(source) => Err(Error::Stream { attempt, source }),
    }
}

/// Keeps the standard streams and these descriptors, and hides this process from those of its
/// container. Before the filter, which need not allow it.
pub(super) fn be_alone(start: RawFd, filter: Option<RawFd>) -> std::io::Result<()> {
    // The pipe for reports of panics is closed here; stderr is read by the host.
    drop(std::panic::take_hook());
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let mut kept: Vec<u32> = [Some(start), filter]
        .into_iter()
        .flatten()
        .filter_map(|fd| u32::try_from(fd).ok())
        .collect();
    kept.sort_unstable();
    let mut first = FIRST_OF_OURS;
    for fd in kept {
        crate::sys::close_range(first, fd.saturating_sub(1))?;
        first = fd + 1;
    }
    crate::sys::close_range(first, u32::MAX)
}

/// Closes the pipe that says whether a program could be executed.
pub(super) fn be_started(start: RawFd) -> std::io::Result<()> {
    let start = u32::try_from(start).unwrap_or(u32::MAX);
    crate::sys::close_range(start, start)
}
