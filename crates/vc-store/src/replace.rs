//! One file in place of another, so that a reader sees the old one or the new one.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags, fsync, openat, renameat, unlinkat};

/// The calls by which a file is replaced; a test puts its own in their place.
pub(crate) trait Disk {
    /// Makes the file `name`, or empties it.
    fn create(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<File>;
    /// Writes all of `bytes`.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    /// Waits until the file's bytes are on the disk.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Gives the file `from` the name `to`, which another one may have.
    fn rename(&self, dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()>;
    /// Waits until the directory's names are on the disk.
    fn sync_dir(&self, dir: BorrowedFd<'_>) -> io::Result<()>;
    /// Removes the file `name`.
    fn unlink(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<()>;
}

/// The host's own.
pub(crate) struct HostDisk;

impl Disk for HostDisk {
    fn create(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(dir, from, dir, to)?)
    }

    fn sync_dir(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        Ok(fsync(dir)?)
    }

    fn unlink(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        Ok(unlinkat(dir, name, AtFlags::empty())?)
    }
}

/// Puts `bytes` in the place of the file `name`.
///
/// The caller holds the lock of the directory: the temporary file has one fixed name, so that one
/// that was left by a crash is overwritten by the next change and they never pile up.
pub(crate) fn replace(disk: &dyn Disk, dir: impl AsFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let dir = dir.as_fd();
    let new = format!("{name}.new");
    let written = disk.create(dir, &new).and_then(|mut file| {
        disk.write(&mut file, bytes)?;
        disk.sync(&file)
    });
    let renamed = written.and_then(|()| disk.rename(dir, &new, name));
    if let Err(error) = renamed {
        // The first error is the one to report; a file that stays is overwritten later.
        let _ = disk.unlink(dir, &new);
        return Err(error);
    }
    disk.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use proptest::prelude::*;

    use super::*;
    use crate::{Error, SandboxDir, SandboxRecord, Store, StoreLimits, Verb};

    /// How the n-th call goes wrong.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fault {
        /// The call fails, and the program goes on.
        Error,
        /// The program ends before the call.
        Crash,
        /// The program ends in the middle of the call.
        CrashAfterHalf,
    }

    /// The host's disk, until the chosen call; after a crash nothing happens any more.
    struct FaultyDisk {
        fault: Option<(usize, Fault)>,
        calls: Cell<usize>,
        crashed: Cell<bool>,
        log: RefCell<Vec<&'static str>>,
    }

    impl FaultyDisk {
        fn new(fault: Option<(usize, Fault)>) -> Self {
            Self {
                fault,
                calls: Cell::new(0),
                crashed: Cell::new(false),
                log: RefCell::default(),
            }
        }

        /// Whether the call goes wrong, and whether half of it still happens.
        fn call(&self, name: &'static str) -> Result<(), bool> {
            if self.crashed.get() {
                return Err(false);
            }
            self.log.borrow_mut().push(name);
            let number = self.calls.replace(self.calls.get() + 1);
            match self.fault {
                Some((at, fault)) if at == number => {
                    self.crashed.set(fault != Fault::Error);
                    Err(fault == Fault::CrashAfterHalf)
                }
                _ => Ok(()),
            }
        }
    }

    fn failed<T>() -> io::Result<T> {
        Err(io::ErrorKind::Other.into())
    }

    impl Disk for FaultyDisk {
        fn create(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<File> {
            match self.call("create") {
                Ok(()) => HostDisk.create(dir, name),
                Err(true) => HostDisk.create(dir, name).and(failed()),
                Err(false) => failed(),
            }
        }

        fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
            match self.call("write") {
                Ok(()) => HostDisk.write(file, bytes),
                Err(true) => HostDisk
                    .write(file, &bytes[..bytes.len() / 2])
                    .and(failed()),
                Err(false) => failed(),
            }
        }

        fn sync(&self, file: &File) -> io::Result<()> {
            self.call("sync").or_else(|_| failed())?;
            HostDisk.sync(file)
        }

        fn rename(&self, dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
            match self.call("rename") {
                Ok(()) => HostDisk.rename(dir, from, to),
                Err(true) => HostDisk.rename(dir, from, to).and(failed()),
                Err(false) => failed(),
            }
        }

        fn sync_dir(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
            self.call("sync_dir").or_else(|_| failed())?;
            HostDisk.sync_dir(dir)
        }

        fn unlink(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
            self.call("unlink").or_else(|_| failed())?;
            HostDisk.unlink(dir, name)
        }
    }

    fn sandbox() -> (tempfile::TempDir, SandboxDir) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), StoreLimits::default());
        let record = SandboxRecord::new("a".parse().unwrap()).unwrap();
        let guard = store.create(record, Verb::Create).unwrap();
        let dir = guard.sandbox().clone();
        guard.commit(|_| ()).unwrap();
        (root, dir)
    }

    fn set(dir: &SandboxDir, disk: &dyn Disk, value: &str) -> Result<(), Error> {
        dir.update_on(disk, |record| {
            record.assets.insert("value".into(), value.into());
            Ok(())
        })
    }

    #[test]
    fn the_new_file_is_synced_before_it_is_renamed_and_the_name_after() {
        let (_root, dir) = sandbox();
        let disk = FaultyDisk::new(None);
        set(&dir, &disk, "x").unwrap();
        assert_eq!(
            *disk.log.borrow(),
            ["create", "write", "sync", "rename", "sync_dir"]
        );
    }

    #[test]
    fn a_change_that_changes_nothing_writes_nothing() {
        let (_root, dir) = sandbox();
        set(&dir, &HostDisk, "x").unwrap();
        let disk = FaultyDisk::new(None);
        set(&dir, &disk, "x").unwrap();
        assert!(disk.log.borrow().is_empty());
    }

    #[test]
    fn an_error_leaves_no_temporary_file() {
        for at in 0..4 {
            let (root, dir) = sandbox();
            set(&dir, &FaultyDisk::new(Some((at, Fault::Error))), "x").unwrap_err();
            let names = std::fs::read_dir(root.path().join("a")).unwrap().count();
            assert_eq!(names, 2, "call {at}");
        }
    }

    fn step() -> impl Strategy<Value = (String, Option<(usize, Fault)>)> {
        let kind = prop_oneof![
            Just(Fault::Error),
            Just(Fault::Crash),
            Just(Fault::CrashAfterHalf)
        ];
        ("[a-z]{0,2000}", prop::option::of((0usize..6, kind)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever fails, and wherever the program ends, a reader sees the state before the
        /// change or after it, and the next change works.
        #[test]
        fn a_reader_sees_the_old_or_the_new(steps in prop::collection::vec(step(), 1..12)) {
            let (_root, dir) = sandbox();
            let mut model: Option<String> = None;
            for (value, fault) in steps {
                let result = set(&dir, &FaultyDisk::new(fault), &value);
                let read = dir.read().unwrap().assets.get("value").cloned();
                match result {
                    Ok(()) => prop_assert_eq!(read.as_ref(), Some(&value)),
                    Err(_) => prop_assert!(
                        read == model || read.as_ref() == Some(&value),
                        "{:?}", fault
                    ),
                }
                model = read;
            }
        }
    }
}
