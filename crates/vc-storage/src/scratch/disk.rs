use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags, fstatvfs, open};
use vc_types::ByteSize;

use super::format::{Formatter, Formatting};
use crate::error::{Error, Result};

/// A scratch disk is not begun with less than this free.
const FREE_MIN: ByteSize = ByteSize::from_mib(64);

/// What is left free for the host when a guest fills its disk.
const RESERVE: ByteSize = ByteSize::from_mib(32);

/// The smallest disk that holds a file system worth having.
const SIZE_MIN: ByteSize = ByteSize::from_mib(16);

/// A guest's writable layer: a sparse file without a name, with an ext4 in it.
///
/// The file is gone when nobody holds it any more. What is in it may come beside the VM's start: the
/// VMM may have the descriptor at once, and the guest may mount it after [`ScratchDisk::finish`].
/// No file system of it is ever mounted on the host.
#[derive(Debug)]
pub struct ScratchDisk {
    file: File,
    size: ByteSize,
    whole: bool,
    formatter: Formatter,
    content: Mutex<Content>,
}

/// What is in the file.
#[derive(Debug)]
enum Content {
    Nothing,
    Coming(Formatting),
    FileSystem,
}

impl ScratchDisk {
    /// Makes the file in `directory`, with nothing in it.
    ///
    /// `size` is apparent: nothing is set aside for it. Where less than that is free, the disk
    /// is made smaller, so that a guest which fills it gets `ENOSPC` from its own file system
    /// and not errors of a disk; [`Self::size`] says what it became.
    ///
    /// # Errors
    ///
    /// [`Error::ScratchSpace`] when there is hardly room for anything; [`Error::Scratch`] when
    /// the file cannot be made.
    pub fn create(formatter: Formatter, directory: &Path, size: ByteSize) -> Result<Self> {
        let asked = size;
        let failed = |source| Error::Scratch {
            directory: directory.into(),
            size,
            source,
        };
        let file = unnamed(directory).map_err(failed)?;
        let free = free(&file).map_err(failed)?;
        if free < FREE_MIN {
            return Err(Error::ScratchSpace {
                directory: directory.into(),
                free,
            });
        }
        let size = fitting(size, free);
        file.set_len(size.bytes()).map_err(failed)?;
        Ok(Self {
            file,
            size,
            whole: size == asked,
            formatter,
            content: Mutex::new(Content::Nothing),
        })
    }

    /// How large it is.
    pub fn size(&self) -> ByteSize {
        self.size
    }

    /// Whether it is as large as was asked for.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// What makes file systems like its own.
    pub fn formatter(&self) -> &Formatter {
        &self.formatter
    }

    /// A descriptor for the VMM, open for reading and writing.
    ///
    /// # Errors
    ///
    /// [`Error::ScratchContent`] when there are no more descriptors.
    pub fn descriptor(&self) -> Result<OwnedFd> {
        let copy = self.file.try_clone();
        Ok(copy.map_err(failed("pass on"))?.into())
    }

    /// Begins to format it, unless there is something in it.
    ///
    /// # Errors
    ///
    /// [`Error::ScratchContent`] when there are no more descriptors.
    pub fn begin(&self) -> Result<()> {
        let mut content = self.content();
        if let Content::Nothing = *content {
            let formatting = self.formatter.begin(&self.file);
            *content = Content::Coming(formatting.map_err(failed("format"))?);
        }
        Ok(())
    }

    /// Has `fill` write a file system of its size into it, instead of formatting it. It is empty again
    /// where that fails.
    ///
    /// # Errors
    ///
    /// [`Error::ScratchContent`] when it cannot be written.
    pub fn fill(&self, fill: impl FnOnce(&File) -> io::Result<()>) -> Result<()> {
        let filled = fill(&self.file).map_err(failed("copy into"));
        match filled {
            Ok(()) => *self.content() = Content::FileSystem,
            Err(_) => self.empty()?,
        }
        filled
    }

    /// Takes out what was filled in.
    ///
    /// # Errors
    ///
    /// [`Error::ScratchContent`] when that stays.
    pub fn empty(&self) -> Result<()> {
        let mut content = self.content();
        let emptied = self.file.set_len(0);
        let emptied = emptied.and_then(|()| self.file.set_len(self.size.bytes()));
        emptied.map_err(failed("empty"))?;
        *content = Content::Nothing;
        Ok(())
    }

    /// Waits until there is a file system in it. Blocks, at most [`FORMAT_LIMIT`](crate::FORMAT_LIMIT)
    /// after the program runs; it has mostly ended before.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] with what the program printed, [`Error::FormatTimedOut`],
    /// [`Error::Launch`].
    pub fn finish(&self) -> Result<()> {
        self.begin()?;
        let mut content = self.content();
        if let Content::Coming(formatting) = mem::replace(&mut *content, Content::FileSystem) {
            let finished = formatting.finish();
            if finished.is_err() {
                *content = Content::Nothing;
            }
            return finished;
        }
        Ok(())
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(attempt: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::ScratchContent { attempt, source }
}

/// A file that has no name, or loses it at once where the file system has no such files.
fn unnamed(directory: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
    match open(directory, flags, mode) {
        Ok(file) => return Ok(file.into()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let path = directory.join(format!(".scratch-{}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode.as_raw_mode())
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn free(file: &File) -> io::Result<ByteSize> {
    let system = fstatvfs(file)?;
    Ok(ByteSize::from_bytes(
        system.f_bavail.saturating_mul(system.f_frsize),
    ))
}

/// As large as asked for, but no larger than what is free, in whole MiB.
fn fitting(asked: ByteSize, free: ByteSize) -> ByteSize {
    let most = free.bytes().saturating_sub(RESERVE.bytes());
    let size = asked.bytes().min(most).max(SIZE_MIN.bytes());
    ByteSize::from_bytes(size >> 20 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_never_larger_than_what_is_free() {
        let gib = |n: u32| ByteSize::from_mib(n << 10);
        assert_eq!(fitting(gib(10), gib(100)), gib(10));
        assert_eq!(fitting(gib(10), gib(1)).mib(), 1024 - 32);
        assert_eq!(fitting(ByteSize::from_mib(1), gib(1)), SIZE_MIN);
    }

    #[test]
    fn a_file_without_a_name_leaves_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = unnamed(directory.path()).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"x", 4096).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
