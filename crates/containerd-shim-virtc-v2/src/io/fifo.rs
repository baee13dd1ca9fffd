//! A named pipe whose reader may not be there yet.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::{Errno, retry_on_intr};

/// What output goes to.
#[derive(Debug)]
pub(super) enum Found {
    /// It can be written to.
    Open(OwnedFd),
    Awaited(Fifo),
}

impl Found {
    /// Opens what is at a path, where nobody has to be waited for.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let place = Place::at(path)?;
        let there = match place.is_fifo()? {
            true => match place.open(OFlags::WRONLY | OFlags::NONBLOCK) {
                Err(Errno::NXIO) => return Ok(Self::Awaited(Fifo::new(place))),
                there => Some(there?),
            },
            false => None,
        };
        let file = place.open_for_good()?;
        drop(there);
        Ok(Self::Open(file))
    }
}

/// A named pipe that nobody reads yet.
///
/// containerd opens what it reads on threads of its own, on a busy host only when a short process has
/// ended. What was written and closed before is lost then, and the reader waits for ever for another
/// who writes. So this waits for the reader.
#[derive(Debug)]
pub(super) struct Fifo {
    place: Place,
    /// Whether nobody wants to write any more.
    released: AtomicBool,
    /// This side's own reader: with one there, a wait ends.
    reader: OnceLock<OwnedFd>,
}

impl Fifo {
    fn new(place: Place) -> Self {
        Self {
            place,
            released: AtomicBool::new(false),
            reader: OnceLock::new(),
        }
    }

    /// Waits until somebody reads, or until it is released.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::BrokenPipe`] where it is released, and those of the system.
    pub(super) fn opened(&self) -> io::Result<OwnedFd> {
        let there = self.place.open(OFlags::WRONLY)?;
        if self.released.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let file = self.place.open_for_good()?;
        drop(there);
        Ok(file)
    }

    /// Ends a wait, also one that has not begun.
    pub(super) fn release(&self) {
        // Before the wait can end by the reader.
        self.released.store(true, Ordering::SeqCst);
        match self.place.open(OFlags::RDONLY | OFlags::NONBLOCK) {
            // The first one stays until the wait is over.
            Ok(reader) => drop(self.reader.set(reader)),
            Err(error) => tracing::warn!(%error, "a wait for a reader is not ended"),
        }
    }
}

impl Drop for Fifo {
    /// A reader that waits for somebody who writes has its end, though nobody has written.
    fn drop(&mut self) {
        if let Err(error) = self.place.open_for_good() {
            tracing::warn!(%error, "whoever reads an output is not told its end");
        }
    }
}

/// A file, open for nothing: its name may mean another one later.
#[derive(Debug)]
struct Place(OwnedFd);

impl Place {
    fn at(path: &Path) -> io::Result<Self> {
        let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self(place))
    }

    fn is_fifo(&self) -> io::Result<bool> {
        Ok(FileType::from_raw_mode(fstat(&self.0)?.st_mode).is_fifo())
    }

    /// For reading too: it stays open when whoever reads is restarted.
    fn open_for_good(&self) -> Result<OwnedFd, Errno> {
        self.open(OFlags::RDWR | OFlags::NONBLOCK)
    }

    fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        retry_on_intr(|| open(&path, flags | OFlags::CLOEXEC, Mode::empty()))
    }
}
