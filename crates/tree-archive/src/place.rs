//! Names below one directory, reached without following anything.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::error::{Attempt as _, Error, Result};

/// The directory, and the one below it that was used last.
pub(crate) struct Places<'a> {
    root: BorrowedFd<'a>,
    last: Option<(PathBuf, OwnedFd)>,
}

impl<'a> Places<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, last: None }
    }

    /// The directory that `place` is in, and its name there. Directories that are not there are
    /// made, as archives may leave them out.
    pub(crate) fn parent<'p>(&mut self, place: &'p Path) -> Result<(BorrowedFd<'_>, &'p OsStr)> {
        let name = place.file_name().ok_or_else(|| Error::Unsuitable {
            path: place.to_owned(),
            reason: "has no name",
        })?;
        let parent = place.parent().unwrap_or(Path::new(""));
        if parent.as_os_str().is_empty() {
            return Ok((self.root, name));
        }
        if self.last.as_ref().is_none_or(|(path, _)| path != parent) {
            self.last = None;
            self.last = Some((parent.to_owned(), self.walk(parent)?));
        }
        match &self.last {
            Some((_, directory)) => Ok((directory.as_fd(), name)),
            None => Ok((self.root, name)),
        }
    }

    fn walk(&self, path: &Path) -> Result<OwnedFd> {
        let mut directory: Option<OwnedFd> = None;
        for name in path.iter() {
            let from = directory.as_ref().map_or(self.root, |fd| fd.as_fd());
            let next = match open_directory(from, name, OFlags::PATH) {
                Err(Errno::NOENT) => mkdirat(from, name, Mode::from_raw_mode(0o755))
                    .and_then(|()| open_directory(from, name, OFlags::PATH)),
                opened => opened,
            };
            directory = Some(next.map_err(explain).attempt("enter", path)?);
        }
        directory.ok_or_else(|| Error::Unsuitable {
            path: path.to_owned(),
            reason: "has no name",
        })
    }
}

/// A directory, never through a link.
pub(crate) fn open_directory(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Makes room for something that is no directory. A directory is not removed for it.
pub(crate) fn clear(parent: BorrowedFd<'_>, name: &OsStr, place: &Path) -> Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(Error::Unsuitable {
            path: place.to_owned(),
            reason: "is a directory, and is not replaced by something else",
        }),
        Err(errno) => Err(errno).attempt("replace", place),
    }
}

/// A link in the place of a directory is none, whatever the system calls that.
fn explain(errno: Errno) -> Errno {
    match errno {
        Errno::LOOP => Errno::NOTDIR,
        errno => errno,
    }
}
