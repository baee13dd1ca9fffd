use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use vc_types::SandboxId;
use vc_types::limits::STATE_FILE_BYTES_MAX;

use crate::error::{Error, Result, Unreadable, io};
use crate::limits::StoreLimits;
use crate::lock::{StateLock, is_at, lock};
use crate::record::SandboxRecord;
use crate::replace::{Disk, HostDisk, replace};
use crate::version::{decode, encode};

/// The state's file in a sandbox's directory.
pub(crate) const STATE_FILE: &str = "state.json";

/// What a state with one container has at most: such a file is read at once.
const STATE_BYTES_USUAL: usize = 16 << 10;

/// The directory of one sandbox, held open.
///
/// It stays this sandbox's: when it is removed, and even when another one of the same id is made,
/// calls say [`Error::NotFound`].
#[derive(Clone, Debug)]
pub struct SandboxDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: SandboxId,
    root: OwnedFd,
    dir: OwnedFd,
    path: PathBuf,
    limits: StoreLimits,
}

impl SandboxDir {
    /// Opens the directory `name`, which is or is going to be that of `id`.
    pub(crate) fn open(
        root: OwnedFd,
        root_path: &Path,
        name: &str,
        id: &SandboxId,
        limits: StoreLimits,
    ) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match openat(&root, name, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return Err(Error::NotFound { id: id.clone() });
            }
            Err(errno) => return Err(io("open", root_path.join(name))(errno)),
        };
        let path = root_path.join(id);
        Ok(Self(Arc::new(Inner {
            id: id.clone(),
            root,
            dir,
            path,
            limits,
        })))
    }

    /// The sandbox.
    pub fn id(&self) -> &SandboxId {
        &self.0.id
    }

    /// The directory's path, for what takes no descriptor.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The limits of its store.
    pub(crate) fn limits(&self) -> StoreLimits {
        self.0.limits
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.0.root.as_fd()
    }

    /// Reads the state, without a lock: it is the one before a change or after it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when the sandbox was removed, [`Error::Broken`] when the file cannot
    /// be used.
    pub fn read(&self) -> Result<SandboxRecord> {
        if !self.is_current() {
            return Err(self.not_found());
        }
        match read(&self.0.dir, STATE_FILE, self.id()) {
            Ok(record) => Ok(record),
            // It was removed while it was read.
            Err(_) if !self.is_current() => Err(self.not_found()),
            Err(source) => {
                let path = self.path().join(STATE_FILE);
                Err(Error::Broken {
                    id: self.id().clone(),
                    path,
                    source,
                })
            }
        }
    }

    /// Changes the state: the lock is taken, `change` is called with what is stored, and the
    /// result is stored.
    ///
    /// `change` does not wait for anything: others wait for the lock.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when the lock was not free in time, [`Error::Io`] when the state could
    /// not be written (it is then as it was), and those of [`SandboxDir::read`].
    pub fn update<T>(&self, change: impl FnOnce(&mut SandboxRecord) -> T) -> Result<T> {
        self.try_update(|record| Ok(change(record)))
    }

    /// Changes the state as [`SandboxDir::update`] does, unless `change` fails.
    ///
    /// # Errors
    ///
    /// Those of [`SandboxDir::update`], and those of `change`: nothing is stored then.
    pub fn try_update<T, E: From<Error>>(
        &self,
        change: impl FnOnce(&mut SandboxRecord) -> Result<T, E>,
    ) -> Result<T, E> {
        self.update_on(&HostDisk, change)
    }

    pub(crate) fn update_on<T, E: From<Error>>(
        &self,
        disk: &dyn Disk,
        change: impl FnOnce(&mut SandboxRecord) -> Result<T, E>,
    ) -> Result<T, E> {
        let _lock = self.lock()?;
        let stored = self.read()?;
        let mut record = stored.clone();
        let result = change(&mut record)?;
        if record != stored {
            self.write(disk, &record).map_err(|error| {
                // It was removed by somebody who got no lock in time.
                if self.is_current() {
                    error
                } else {
                    self.not_found()
                }
            })?;
        }
        Ok(result)
    }

    /// Takes the lock of what is still this sandbox's directory.
    pub(crate) fn lock(&self) -> Result<StateLock> {
        // Checked before too: in a directory that is being removed no lock file is to appear.
        if !self.is_current() {
            return Err(self.not_found());
        }
        let limit = self.0.limits.lock;
        let lock = lock(&self.0.dir, self.path(), limit);
        // In a directory that was removed meanwhile its file cannot be opened.
        if !self.is_current() {
            return Err(self.not_found());
        }
        lock?.ok_or_else(|| Error::Locked {
            id: self.id().clone(),
            limit,
        })
    }

    /// Stores the record; the caller holds the lock.
    pub(crate) fn write(&self, disk: &dyn Disk, record: &SandboxRecord) -> Result<()> {
        let bytes = encode(self.id(), record)?;
        replace(disk, &self.0.dir, STATE_FILE, &bytes)
            .map_err(io("write", self.path().join(STATE_FILE)))
    }

    /// Whether the directory is still there under its name.
    pub(crate) fn is_current(&self) -> bool {
        is_at(&self.0.dir, &self.0.root, self.id().as_str())
    }

    pub(crate) fn not_found(&self) -> Error {
        Error::NotFound {
            id: self.id().clone(),
        }
    }
}

impl AsFd for SandboxDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.dir.as_fd()
    }
}

/// Reads a state file, whose name is relative to `dir`.
pub(crate) fn read(
    dir: impl AsFd,
    name: &str,
    id: &SandboxId,
) -> Result<SandboxRecord, Unreadable> {
    // Opening a fifo that somebody put there would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = match openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file.into(),
        Err(Errno::NOENT) => return Err(Unreadable::Missing),
        Err(errno) => return Err(Unreadable::Io(errno.into())),
    };
    let mut bytes = Vec::with_capacity(STATE_BYTES_USUAL);
    file.take(STATE_FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(Unreadable::Io)?;
    if bytes.len() as u64 > STATE_FILE_BYTES_MAX {
        let bytes = bytes.len() as u64;
        return Err(Unreadable::TooLarge {
            bytes,
            max: STATE_FILE_BYTES_MAX,
        });
    }
    let record = decode(&bytes)?;
    if record.id != *id {
        return Err(Unreadable::OtherSandbox { other: record.id });
    }
    Ok(record)
}
