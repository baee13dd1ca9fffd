//! What the guest's kernel remembers of a share, and the host holds for it.

use std::fs;
use std::path::Path;

use rustix::fs::{Mode, mkdir, rmdir};
use rustix::io::Errno;

use crate::error::{Attempt as _, Result};

/// Paths that are looked at in one call.
const PATHS_MAX: usize = 1024;

/// Takes a mask of what the kernel drops (admin-guide/sysctl/vm.rst).
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// Content, names and attributes.
const ALL_CACHES: &str = "3";

/// How often they are dropped: what was used a moment ago is only marked the first time.
const DROPS: usize = 2;

/// Lets the kernel forget content, names and attributes of all files that nobody has open.
///
/// # Errors
///
/// [`crate::error::Error::Io`] when the kernel does not do it.
pub(crate) fn forget_all() -> Result<()> {
    for _ in 0..DROPS {
        fs::write(DROP_CACHES, ALL_CACHES).attempt(|| "forget what is known of files".into())?;
    }
    Ok(())
}

/// Lets the kernel forget what it knows of paths that the host has taken out of a share, and of all
/// that was below them. For each file that it knows, the host's side keeps a descriptor, and with it
/// the file system alive that the file is on.
///
/// A path that is still there is left alone.
///
/// # Errors
///
/// [`crate::error::Error::Io`] for a path whose directory cannot be looked at.
pub(crate) fn forget(paths: &[String]) -> Result<()> {
    for path in paths.iter().map(Path::new).take(PATHS_MAX) {
        // Before it makes a directory, the kernel asks the host whether the name is there, however
        // fresh its own memory of it is; when the host has none, it drops that memory.
        match mkdir(path, Mode::RWXU) {
            Ok(()) => rmdir(path).attempt(|| format!("remove {} again", path.display()))?,
            Err(Errno::EXIST | Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::NOENT) => {}
            error => error.attempt(|| format!("look for {}", path.display()))?,
        }
    }
    Ok(())
}
