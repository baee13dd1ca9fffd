use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fstatvfs, open};
use vc_launch::{LaunchSpec, LaunchedProcess, Launcher, PassedFd, Pending, ProcessEnd, Program};
use vc_types::ByteSize;

use crate::error::{Error, Result};

/// How long formatting may take. It takes some twenty milliseconds.
pub const FORMAT_LIMIT: Duration = Duration::from_secs(10);

/// A scratch disk is not begun with less than this free.
const FREE_MIN: ByteSize = ByteSize::from_mib(64);

/// What is left free for the host when a guest fills its disk.
const RESERVE: ByteSize = ByteSize::from_mib(32);

/// The smallest disk that holds a file system worth having.
const SIZE_MIN: ByteSize = ByteSize::from_mib(16);

/// Bytes of the formatting program's output that an error quotes.
const OUTPUT_BYTES_MAX: u64 = 2 << 10;

/// The number at which the formatting program finds the file.
const DISK: i32 = 3;

/// A guest's writable layer: a sparse file without a name, with an ext4 in it.
///
/// The file is gone when nobody holds it any more. Formatting runs beside the VM's start: the VMM
/// may have the descriptor at once, and the guest may mount it after [`ScratchDisk::formatted`].
/// No file system of it is ever mounted on the host.
#[derive(Debug)]
pub struct ScratchDisk {
    file: File,
    size: ByteSize,
    formatting: Option<Formatting>,
}

#[derive(Debug)]
struct Formatting {
    program: PathBuf,
    pending: Pending,
    output: File,
}

impl ScratchDisk {
    /// Makes the file in `directory` and begins to format it with `mkfs` (`mkfs.ext4`).
    ///
    /// `size` is apparent: nothing is set aside for it. Where less than that is free, the disk
    /// is made smaller, so that a guest which fills it gets `ENOSPC` from its own file system
    /// and not errors of a disk; [`Self::size`] says what it became.
    ///
    /// # Errors
    ///
    /// [`Error::ScratchSpace`] when there is hardly room for anything; [`Error::Scratch`] when
    /// the file cannot be made.
    pub fn create(
        launcher: &Launcher,
        mkfs: &Path,
        directory: &Path,
        size: ByteSize,
    ) -> Result<Self> {
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

        let output = unnamed(directory).map_err(failed)?;
        let passed = vec![
            PassedFd::at(DISK, file.try_clone().map_err(failed)?),
            PassedFd::output(output.try_clone().map_err(failed)?),
        ];
        let pending = launcher.launch(format_spec(mkfs), passed);
        Ok(Self {
            file,
            size,
            formatting: Some(Formatting {
                program: mkfs.into(),
                pending,
                output,
            }),
        })
    }

    /// How large it is.
    pub fn size(&self) -> ByteSize {
        self.size
    }

    /// A descriptor for the VMM, open for reading and writing.
    ///
    /// # Errors
    ///
    /// [`Error::Scratch`] when there are no more descriptors.
    pub fn descriptor(&self) -> Result<OwnedFd> {
        let copy = self.file.try_clone().map_err(|source| Error::Scratch {
            directory: PathBuf::new(),
            size: self.size,
            source,
        })?;
        Ok(copy.into())
    }

    /// Waits until there is a file system in it. Blocks, at most [`FORMAT_LIMIT`] after the
    /// program runs; it has mostly ended before.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] with what the program printed, [`Error::FormatTimedOut`],
    /// [`Error::Launch`].
    pub fn formatted(&mut self) -> Result<()> {
        let Some(formatting) = self.formatting.take() else {
            return Ok(());
        };
        let process = formatting.pending.wait()?;
        finish(process, &formatting.program, formatting.output)
    }
}

/// Waits for the formatting program, and says what it printed when it failed.
fn finish(mut process: LaunchedProcess, program: &Path, mut output: File) -> Result<()> {
    match process.wait_timeout(FORMAT_LIMIT)? {
        Some(ProcessEnd::Code(0)) => Ok(()),
        Some(end) => {
            let mut text = Vec::new();
            let read = output
                .rewind()
                .and_then(|()| output.take(OUTPUT_BYTES_MAX).read_to_end(&mut text));
            if let Err(error) = read {
                tracing::debug!(%error, "the output of the formatting program is not readable");
            }
            let text = String::from_utf8_lossy(&text);
            let text = text.trim();
            Err(Error::Format {
                program: program.display().to_string(),
                end: end.to_string(),
                output: if text.is_empty() {
                    String::new()
                } else {
                    format!(": {text}")
                },
            })
        }
        None => Err(Error::FormatTimedOut {
            limit: FORMAT_LIMIT,
        }),
    }
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

/// What the file system is like: the guest throws it away, so there is no journal, no reserve
/// for root and no checksum to compute; nothing is written that is zero already, and the tables
/// lie together.
fn format_spec(mkfs: &Path) -> LaunchSpec {
    let program = Program::Path(mkfs.display().to_string());
    let mut spec = LaunchSpec::new("the formatting of the scratch disk", program);
    spec.args = [
        "-q",
        "-F",
        "-b",
        "4096",
        "-m",
        "0",
        "-i",
        "16384",
        "-G",
        "256",
        "-O",
        "^has_journal,^metadata_csum,^resize_inode",
        "-E",
        "lazy_itable_init=1,assume_storage_prezeroed=1,nodiscard",
        &format!("/proc/self/fd/{DISK}"),
    ]
    .map(str::to_owned)
    .to_vec();
    // The file belongs to whoever made it, and it needs nothing else.
    spec.capabilities = Some(Vec::new());
    spec
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

    #[test]
    fn formatting_needs_no_right() {
        insta::assert_debug_snapshot!(format_spec("/sbin/mkfs.ext4".as_ref()));
    }
}
