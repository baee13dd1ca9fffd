//! Removing a directory with everything in it, and nothing else.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, unlinkat,
};
use rustix::io::Errno;

use crate::error::{Error, Result, io};
use crate::limits::{REMOVE_DEPTH_MAX, REMOVE_LOOKS_MAX};

/// Removes the directory `name` in `parent`. What is not there is removed already.
///
/// A link is removed, never followed; a directory on which something is mounted is never entered.
/// What cannot be removed does not stop the rest; the first error is returned.
pub(crate) fn remove_tree(parent: impl AsFd, name: &str, parent_path: &Path) -> Result<()> {
    remove_dir(parent.as_fd(), OsStr::new(name), &parent_path.join(name), 0)
}

fn remove_dir(parent: BorrowedFd<'_>, name: &OsStr, path: &Path, depth: usize) -> Result<()> {
    if depth > REMOVE_DEPTH_MAX {
        return Err(io("remove the many levels of", path)(Errno::NAMETOOLONG));
    }
    let dir = match open_beneath(parent, name) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::XDEV) => {
            return Err(Error::Mounted {
                path: path.to_owned(),
            });
        }
        Err(errno) => return Err(io("open", path)(errno)),
    };
    let mut looks = 0;
    loop {
        remove_entries(&dir, path, depth)?;
        looks += 1;
        return match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY) if looks < REMOVE_LOOKS_MAX => continue,
            Err(Errno::BUSY) => Err(Error::Mounted {
                path: path.to_owned(),
            }),
            Err(errno) => Err(io("remove", path)(errno)),
        };
    }
}

fn remove_entries(dir: &OwnedFd, path: &Path, depth: usize) -> Result<()> {
    let mut result = Ok(());
    for entry in Dir::read_from(dir).map_err(io("read", path))? {
        let entry = entry.map_err(io("read", path))?;
        let child = OsStr::from_bytes(entry.file_name().to_bytes());
        if child == "." || child == ".." {
            continue;
        }
        let removed = remove_entry(dir.as_fd(), child, entry.file_type(), path, depth);
        result = result.and(removed);
    }
    result
}

fn remove_entry(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    kind: FileType,
    dir_path: &Path,
    depth: usize,
) -> Result<()> {
    let path = dir_path.join(name);
    if kind == FileType::Directory {
        return remove_dir(dir, name, &path, depth + 1);
    }
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // The file system did not say what it is.
        Err(Errno::ISDIR) => remove_dir(dir, name, &path, depth + 1),
        Err(Errno::BUSY) => Err(Error::Mounted { path }),
        Err(errno) => Err(io("remove", path)(errno)),
    }
}

/// Opens a directory, but no link to one and nothing that is mounted (EXDEV).
fn open_beneath(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match openat2(parent, name, flags, Mode::empty(), resolve) {
        // Before Linux 5.6, or under a filter that does not know it: another file system is all
        // that can be seen.
        Err(Errno::NOSYS | Errno::PERM) => {
            let dir = openat(parent, name, flags, Mode::empty())?;
            if fstat(&dir)?.st_dev == fstat(parent)?.st_dev {
                Ok(dir)
            } else {
                Err(Errno::XDEV)
            }
        }
        opened => opened,
    }
}
