//! The state lock.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, openat, statat};
use rustix::io::Errno;

use crate::error::{Error, Result, io};
use crate::limits::LOCK_RETRY;

/// The lock's file in a sandbox's directory.
pub(crate) const LOCK_FILE: &str = "lock";

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct StateLock(#[expect(dead_code, reason = "held, not read")] OwnedFd);

/// Opens the lock's file, which is made where it is missing.
fn open(dir: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, LOCK_FILE, flags, Mode::RUSR | Mode::WUSR).map_err(io("open", path.join(LOCK_FILE)))
}

/// Takes the lock of the directory, or nothing when it was not free within `limit`.
///
/// The file may be another one by the time that its lock is free: then the new one's is taken.
pub(crate) fn lock(dir: impl AsFd, path: &Path, limit: Duration) -> Result<Option<StateLock>> {
    let end = Instant::now() + limit;
    loop {
        let file = open(&dir, path)?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
                Err(errno) => return Err(io("lock", path.join(LOCK_FILE))(errno)),
            }
        }
        if is_at(&file, &dir, LOCK_FILE) {
            return Ok(Some(StateLock(file)));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
    }
}

/// Whether the open file is the one that `name` stands for now.
pub(crate) fn is_at(file: impl AsFd, dir: impl AsFd, name: &str) -> bool {
    match (fstat(file), statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)) {
        (Ok(open), Ok(named)) => (open.st_dev, open.st_ino) == (named.st_dev, named.st_ino),
        _ => false,
    }
}

/// The lock of a directory that nobody else can have.
pub(crate) fn lock_new(dir: impl AsFd, path: &Path) -> Result<StateLock> {
    let file = open(dir, path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(io("lock", path.join(LOCK_FILE)))?;
    Ok(StateLock(file))
}

impl Error {
    /// Whether it says that there is no such sandbox (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
