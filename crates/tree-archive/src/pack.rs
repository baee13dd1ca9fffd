//! A tree of files as an archive.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, ReadDir};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, major, minor, statfs};
use serde::{Deserialize, Serialize};

use crate::BUFFER_BYTES;
use crate::entry::{Entry, Kind, Time};
use crate::error::{Attempt as _, Error, Result};
use crate::writer::Writer;

/// File systems whose files the kernel makes up when they are read, without a size that is true
/// and partly without an end: proc, sysfs, both cgroups, devpts, debugfs, tracefs, securityfs, bpf,
/// mqueue.
const MADE_UP: [u64; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x1980_0202,
];

/// What is to be packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    /// A file or a directory with all that is below it. A link with a slash at its end is followed.
    pub path: PathBuf,
    /// What it is called in the archive; `.` when only what is in it matters.
    pub root: PathBuf,
    /// Whether a link at `path` is followed. Those below it never are.
    pub follow: bool,
}

impl Pack {
    /// Whether the path is there, before anything else is done.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when it is not.
    pub fn check(&self) -> Result<()> {
        let found = match self.follow {
            true => fs::metadata(&self.path),
            false => fs::symlink_metadata(&self.path),
        };
        found.attempt("find", &self.path).map(drop)
    }

    /// Writes the archive. Modes, owners, times, links and other names of the same file are kept;
    /// sockets are left out, and so is what is in file systems that the kernel makes up.
    ///
    /// # Errors
    ///
    /// [`Error::File`] with the file that cannot be read, [`Error::Unsuitable`] for one that gets
    /// shorter meanwhile, [`Error::Stream`] when `sink` takes no more. The archive has no end then.
    pub fn write(&self, sink: impl Write) -> Result<()> {
        let mut packer = Packer {
            writer: Writer::new(BufWriter::with_capacity(BUFFER_BYTES, sink)),
            linked: HashMap::new(),
        };
        let path = match self.follow {
            true => &fs::canonicalize(&self.path).attempt("find", &self.path)?,
            false => &self.path,
        };
        let metadata = fs::symlink_metadata(path).attempt("find", path)?;
        packer.add(path, &self.root, &metadata)?;
        if metadata.is_dir() {
            packer.walk(path, &self.root, metadata.dev())?;
        }
        packer.writer.finish().map_err(unwritable)
    }
}

struct Packer<W> {
    writer: Writer<W>,
    /// Names of files that have more names that were not seen, and how many of these there are.
    linked: HashMap<(u64, u64), (PathBuf, u64)>,
}

/// A directory that is walked through.
struct Level {
    entries: ReadDir,
    path: PathBuf,
    name: PathBuf,
    device: u64,
}

impl Level {
    fn open(path: &Path, name: &Path, device: u64) -> Result<Self> {
        Ok(Self {
            entries: fs::read_dir(path).attempt("read the directory", path)?,
            path: path.to_owned(),
            name: name.to_owned(),
            device,
        })
    }
}

impl<W: Write> Packer<W> {
    fn walk(&mut self, path: &Path, name: &Path, device: u64) -> Result<()> {
        let mut levels = vec![Level::open(path, name, device)?];
        while let Some(level) = levels.last_mut() {
            let Some(found) = level.entries.next() else {
                levels.pop();
                continue;
            };
            let found = found.attempt("read the directory", &level.path)?;
            let (path, name) = (found.path(), level.name.join(found.file_name()));
            let device = level.device;
            let metadata = match fs::symlink_metadata(&path) {
                // It was removed meanwhile: the tree may be in use.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found.attempt("look at", &path)?,
            };
            self.add(&path, &name, &metadata)?;
            if metadata.is_dir() && (metadata.dev() == device || !is_made_up(&path)) {
                levels.push(Level::open(&path, &name, metadata.dev())?);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> Result<()> {
        let kind = metadata.file_type();
        if kind.is_file() {
            return self.file(path, name, metadata);
        }
        let kind = match kind {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_symlink() => Kind::Symlink,
            kind if kind.is_fifo() => Kind::Fifo,
            kind if kind.is_char_device() => Kind::CharDevice,
            kind if kind.is_block_device() => Kind::BlockDevice,
            // A socket is nothing without whoever listens.
            _ => return Ok(()),
        };
        let mut entry = describe(kind, name, metadata);
        if kind == Kind::Symlink {
            entry.link = Some(fs::read_link(path).attempt("read the link", path)?);
        }
        self.writer.header(&entry).map_err(unwritable)
    }

    fn file(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> Result<()> {
        if let Some(first) = self.first_name(name, metadata) {
            let mut entry = describe(Kind::HardLink, name, metadata);
            entry.link = Some(first);
            return self.writer.header(&entry).map_err(unwritable);
        }
        // Whoever uses the tree may have put something else there meanwhile.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut file = File::options()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(path)
            .attempt("open", path)?;
        let metadata = file.metadata().attempt("look at", path)?;
        if !metadata.is_file() {
            return Err(unsuitable(
                path,
                "became something else while it was copied",
            ));
        }
        let mut entry = describe(Kind::File, name, &metadata);
        entry.size = metadata.len();
        self.writer.header(&entry).map_err(unwritable)?;
        let copied = self.writer.contents(&mut file, entry.size);
        match copied.map_err(unwritable)? {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(unsuitable(path, "became shorter while it was copied"))
            }
            copied => copied.attempt("read", path),
        }
    }

    /// The name under which this file is in the archive already.
    fn first_name(&mut self, name: &Path, metadata: &Metadata) -> Option<PathBuf> {
        if metadata.nlink() < 2 {
            return None;
        }
        let key = (metadata.dev(), metadata.ino());
        let Some((first, left)) = self.linked.get_mut(&key) else {
            let entry = (name.to_owned(), metadata.nlink() - 1);
            self.linked.insert(key, entry);
            return None;
        };
        let first = first.clone();
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.linked.remove(&key);
        }
        Some(first)
    }
}

fn describe(kind: Kind, name: &Path, metadata: &Metadata) -> Entry {
    Entry {
        kind,
        name: name.to_owned(),
        link: None,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified: Time {
            seconds: metadata.mtime(),
            nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
        },
        size: 0,
        device: (major(metadata.rdev()), minor(metadata.rdev())),
    }
}

/// Whether a directory, on which something is mounted, is of the kernel's own file systems.
fn is_made_up(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| MADE_UP.contains(&(found.f_type as u64)))
}

fn unsuitable(path: &Path, reason: &'static str) -> Error {
    Error::Unsuitable {
        path: path.to_owned(),
        reason,
    }
}

fn unwritable(source: io::Error) -> Error {
    Error::Stream {
        attempt: "write",
        source,
    }
}
