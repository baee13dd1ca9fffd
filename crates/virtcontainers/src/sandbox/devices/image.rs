use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, flock, fstat, openat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Opens a disk of the host for a machine, for as long as the descriptor or a copy of it lives.
///
/// What a machine can write, no other machine has: a block device is claimed as a mount claims it,
/// an image is locked. Blocks.
pub(super) fn open(path: &Path, read_only: bool) -> Result<OwnedFd> {
    let failed = |errno: Errno| Error::System {
        attempt: format!("open {}", path.display()),
        source: errno.into(),
    };
    let refused = |reason| Error::Device {
        device: path.display().to_string(),
        reason,
    };
    // Looked at before it is opened: opening a pipe waits, and opening a device can do things.
    let found = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let found = found.map_err(failed)?;
    let kind = FileType::from_raw_mode(fstat(&found).map_err(failed)?.st_mode);
    let mut flags = OFlags::CLOEXEC
        | match read_only {
            true => OFlags::RDONLY,
            false => OFlags::RDWR,
        };
    match kind {
        FileType::RegularFile => {}
        FileType::BlockDevice if read_only => {}
        FileType::BlockDevice => flags |= OFlags::EXCL,
        _ => return Err(refused("it is neither a file nor a block device")),
    }
    let again = format!("/proc/self/fd/{}", found.as_raw_fd());
    let opened = match openat(CWD, again, flags, Mode::empty()) {
        Err(Errno::BUSY) => return Err(refused(IN_USE)),
        opened => opened.map_err(failed)?,
    };
    if kind == FileType::RegularFile {
        let lock = match read_only {
            true => FlockOperation::NonBlockingLockShared,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        match flock(&opened, lock) {
            Err(Errno::WOULDBLOCK) => return Err(refused(IN_USE)),
            locked => locked.map_err(|errno| Error::System {
                attempt: format!("lock {}", path.display()),
                source: io::Error::from(errno),
            })?,
        }
    }
    Ok(opened)
}

const IN_USE: &str = "it is in use";

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::fs::mkfifoat;

    use super::*;

    #[test]
    fn an_image_that_is_written_is_one_machines_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        std::fs::write(&path, [0; 512]).unwrap();
        let readers = [open(&path, true).unwrap(), open(&path, true).unwrap()];
        let refused = open(&path, false).unwrap_err();
        assert!(refused.to_string().contains("in use"), "{refused}");
        drop(readers);
        let writer = open(&path, false).unwrap();
        // The lock goes along with the descriptor.
        let given_away = writer.try_clone().unwrap();
        drop(writer);
        assert!(open(&path, true).is_err());
        drop(given_away);
        assert!(open(&path, true).is_ok());
    }

    #[test]
    fn what_is_no_disk_is_refused_without_being_opened() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
        let began = Instant::now();
        for path in [pipe.as_path(), directory.path(), Path::new("/dev/null")] {
            let refused = open(path, true).unwrap_err();
            assert!(matches!(refused, Error::Device { .. }), "{refused}");
        }
        assert!(began.elapsed() < Duration::from_secs(5));
        let missing = open(&directory.path().join("nothing"), true).unwrap_err();
        assert!(missing.to_string().contains("nothing"), "{missing}");
    }
}
