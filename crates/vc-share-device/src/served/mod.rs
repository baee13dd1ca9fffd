//! The file system of a share: virtiofsd's, and what slaves need beside it.
//!
//! - A mount of the host that came later has the attributes that it has there, also below a source
//!   that is read-only. So writes below a read-only slave are refused here.
//! - A file that the guest knows is a descriptor here, which keeps its mount busy on the host. So the
//!   guest may believe no name below a slave: it forgets a file when nobody uses it any more, and the
//!   host can unmount what no process of the guest uses, as it can with processes of its own.

mod known;
mod operations;

use std::ffi::CStr;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use virtiofsd::filesystem::Entry;
use virtiofsd::passthrough::{Config, PassthroughFs};

use self::known::Known;

type Inode = u64;
type Handle = u64;

/// What is served.
pub(crate) struct Served {
    inner: PassthroughFs,
    /// Held while the guest learns or forgets, so that it knows nothing that is not in here.
    known: Mutex<Known>,
}

impl Served {
    pub(crate) fn new(config: Config) -> io::Result<Self> {
        Ok(Self {
            inner: PassthroughFs::new(config)?,
            known: Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Its changes are whole at any moment.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what finds a name in a directory.
    fn find<T: HasEntry>(
        &self,
        parent: Inode,
        name: &CStr,
        operation: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        check_name(name)?;
        let mut known = self.known();
        let slave = known.child_of(parent, name);
        let mut found = operation()?;
        let entry = found.entry();
        if known.learn(entry.inode, slave) {
            entry.entry_timeout = Duration::ZERO;
        }
        Ok(found)
    }

    /// Does what makes a name in a directory.
    fn make<T: HasEntry>(
        &self,
        parent: Inode,
        name: &CStr,
        operation: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.check_writable(parent)?;
        self.find(parent, name, operation)
    }

    /// Refuses what would change a file or directory below a read-only slave.
    fn check_writable(&self, inode: Inode) -> io::Result<()> {
        let slave = self.known().of(inode);
        match slave.is_some_and(|slave| slave.read_only) {
            true => Err(read_only()),
            false => Ok(()),
        }
    }

    /// The same for what an opened file may do. One that is opened to be read can be emptied by that.
    fn check_open(&self, inode: Inode, flags: u32) -> io::Result<()> {
        let has = |flag: i32| flags & flag.cast_unsigned() != 0;
        match has(libc::O_ACCMODE) || has(libc::O_TRUNC) || has(libc::O_CREAT) {
            true => self.check_writable(inode),
            false => Ok(()),
        }
    }
}

/// An answer that tells the guest of a file.
trait HasEntry {
    fn entry(&mut self) -> &mut Entry;
}

impl HasEntry for Entry {
    fn entry(&mut self) -> &mut Entry {
        self
    }
}

impl<H, O> HasEntry for (Entry, H, O) {
    fn entry(&mut self) -> &mut Entry {
        &mut self.0
    }
}

/// A guest's kernel sends one plain name. With others, a file could be found past what is known of
/// the directories on the way.
fn check_name(name: &CStr) -> io::Result<()> {
    let name = name.to_bytes();
    match matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        true => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        false => Ok(()),
    }
}

fn read_only() -> io::Error {
    io::Error::from_raw_os_error(libc::EROFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_and_plain() {
        for good in [c"a", c"...", c".a", c"a..b"] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
        for bad in [c"", c".", c"..", c"a/b", c"/", c"../a"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
