//! A named pipe whose reader may not be there yet.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::{Errno, retry_on_intr};

/// A named pipe that nobody reads yet.
///
/// containerd opens what it reads on threads of its own, on a busy host only when a short process has
/// ended. What was written and closed before is lost then, and the reader waits for ever for another
/// who writes. So this waits for the reader.
#[derive(Debug)]
pub(super) struct Fifo {
    /// The pipe itself, open for nothing.
    place: OwnedFd,
    /// This side's own reader: with one there, a wait ends.
    released: OnceLock<OwnedFd>,
}

/// A place for output.
#[derive(Debug)]
pub(super) enum Found {
    /// It can be written to.
    Open(OwnedFd),
    Awaited(Fifo),
}

impl Found {
    /// Opens what is at a path, where nobody has to be waited for.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let is_fifo = FileType::from_raw_mode(fstat(&place)?.st_mode).is_fifo();
        let fifo = Fifo {
            place,
            released: OnceLock::new(),
        };
        let there = match is_fifo {
            true => match fifo.open(OFlags::WRONLY | OFlags::NONBLOCK) {
                Err(Errno::NXIO) => return Ok(Self::Awaited(fifo)),
                there => Some(there?),
            },
            false => None,
        };
        let file = fifo.open_for_good()?;
        drop(there);
        Ok(Self::Open(file))
    }
}

impl Fifo {
    /// Waits until somebody reads, or until it is released.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::BrokenPipe`] where it is released, and those of the system.
    pub(super) fn opened(&self) -> io::Result<OwnedFd> {
        let there = self.open(OFlags::WRONLY)?;
        if self.released.get().is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let file = self.open_for_good()?;
        drop(there);
        Ok(file)
    }

    /// Ends a wait, also one that has not begun.
    pub(super) fn release(&self) {
        match self.open(OFlags::RDONLY | OFlags::NONBLOCK) {
            // The first one stays until the wait is over.
            Ok(reader) => drop(self.released.set(reader)),
            Err(error) => tracing::warn!(%error, "a wait for a reader is not ended"),
        }
    }

    /// For reading too: it stays open when whoever reads is restarted.
    fn open_for_good(&self) -> Result<OwnedFd, Errno> {
        self.open(OFlags::RDWR | OFlags::NONBLOCK)
    }

    fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.place.as_raw_fd()));
        retry_on_intr(|| open(&path, flags | OFlags::CLOEXEC, Mode::empty()))
    }
}
