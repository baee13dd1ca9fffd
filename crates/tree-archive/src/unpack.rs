//! An archive as a tree of files.

use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod,
    fchown, futimens, linkat, mkdirat, mknodat, openat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::BUFFER_BYTES;
use crate::entry::{Entry, Kind, Time};
use crate::error::{Attempt as _, Error, Result};
use crate::names::Names;
use crate::place::{Places, clear, open_directory};
use crate::reader::Reader;

/// What of an archive is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Owners too. Otherwise all belongs to whoever unpacks.
    pub owners: bool,
    /// The bits by which a program gets the rights of its owner or group.
    pub set_id: bool,
}

/// Unpacks an archive below `directory`, and nowhere else, whatever it says.
///
/// Directories that are there stay and get the attributes of the archive's, other files are
/// replaced; `directory` itself keeps its attributes. Nothing is followed, and a directory and
/// something else do not take each other's place.
///
/// # Errors
///
/// [`Error::Entry`] for what is refused, [`Error::File`] and [`Error::Unsuitable`] with the name
/// that could not be made, [`Error::Archive`] and [`Error::Stream`] for an archive that is none or
/// ends too early. What was made before stays; a file that is not complete is removed.
pub fn unpack(
    archive: impl Read,
    directory: BorrowedFd<'_>,
    names: &Names,
    rules: Rules,
) -> Result<()> {
    let mut unpacker = Unpacker {
        archive: Reader::new(BufReader::with_capacity(BUFFER_BYTES, archive)),
        places: Places::new(directory),
        unfinished: Vec::new(),
        names,
        rules,
    };
    let unpacked = unpacker.all();
    let finished = unpacker.finish(|_| false);
    unpacked.and(finished)
}

struct Unpacker<'a, R> {
    archive: Reader<R>,
    places: Places<'a>,
    /// Directories, each in the one before, that get their attributes when all is in them.
    unfinished: Vec<(PathBuf, Entry)>,
    names: &'a Names,
    rules: Rules,
}

impl<R: Read> Unpacker<'_, R> {
    fn all(&mut self) -> Result<()> {
        while let Some(entry) = self.archive.next()? {
            let place = self.names.place(&entry.name)?;
            self.finish(|directory| place.starts_with(directory))?;
            if self.names.is_root(&place)
                && self.names.directory_only
                && entry.kind != Kind::Directory
            {
                return Err(Error::Unsuitable {
                    path: place,
                    reason: "is to be a directory, and what comes is none",
                });
            }
            match (place.as_os_str().is_empty(), entry.kind) {
                (true, Kind::Directory) => {}
                (true, _) => {
                    return Err(Error::Entry {
                        name: entry.name,
                        reason: "takes the place of the directory itself",
                    });
                }
                (false, _) => self.make(place, entry)?,
            }
        }
        Ok(())
    }

    fn make(&mut self, place: PathBuf, entry: Entry) -> Result<()> {
        match entry.kind {
            Kind::Directory => return self.directory(place, entry),
            Kind::File => return self.file(&place, &entry),
            Kind::HardLink => return self.hard_link(&place, &entry),
            Kind::CharDevice | Kind::BlockDevice => {
                return Err(Error::Entry {
                    name: entry.name,
                    reason: "is a device, and devices are not copied",
                });
            }
            Kind::Symlink | Kind::Fifo => {}
        }
        let mode = self.mode(&entry);
        let owner = self.owner(&entry);
        let (parent, name) = self.places.parent(&place)?;
        clear(parent, name, &place)?;
        match &entry.link {
            Some(link) => symlinkat(link, parent, name),
            None => mknodat(parent, name, FileType::Fifo, mode, 0),
        }
        .attempt("make", &place)?;
        if let Some((user, group)) = owner {
            chownat(
                parent,
                name,
                Some(user),
                Some(group),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .attempt("change the owner of", &place)?;
        }
        utimensat(
            parent,
            name,
            &times(entry.modified),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .attempt("set the time of", &place)
    }

    fn directory(&mut self, place: PathBuf, entry: Entry) -> Result<()> {
        let (parent, name) = self.places.parent(&place)?;
        match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => match open_directory(parent, name, OFlags::PATH) {
                Ok(_) => {}
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    return Err(Error::Unsuitable {
                        path: place,
                        reason: "is no directory, and is not replaced by one",
                    });
                }
                Err(errno) => return Err(errno).attempt("open", &place),
            },
            Err(errno) => return Err(errno).attempt("make the directory", &place),
        }
        self.unfinished.push((place, entry));
        Ok(())
    }

    fn file(&mut self, place: &Path, entry: &Entry) -> Result<()> {
        let (mode, owner) = (self.mode(entry), self.owner(entry));
        let (parent, name) = self.places.parent(place)?;
        clear(parent, name, place)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::RUSR | Mode::WUSR).attempt("make", place)?;
        let mut file = File::from(file);
        let written = copy(&mut self.archive, &mut file, entry.size, place)
            .and_then(|()| dress(&file, mode, owner, entry.modified, place));
        if written.is_err() {
            // Half a file is worse than none; the first error is the one to tell.
            let _ = unlinkat(parent, name, AtFlags::empty());
        }
        written
    }

    /// Another name for a file that is below the directory, as the archive's names are mapped.
    fn hard_link(&mut self, place: &Path, entry: &Entry) -> Result<()> {
        let link = entry.link.as_deref().unwrap_or(Path::new(""));
        let first = self.names.place(link)?;
        if first == place {
            return Err(Error::Entry {
                name: entry.name.clone(),
                reason: "is a link to itself",
            });
        }
        let (parent, first_name) = self.places.parent(&first)?;
        let parent = parent.try_clone_to_owned().attempt("link to", &first)?;
        let (target, name) = self.places.parent(place)?;
        clear(target, name, place)?;
        linkat(&parent, first_name, target, name, AtFlags::empty()).attempt("link", place)
    }

    /// Gives attributes to directories that nothing more comes into.
    fn finish(&mut self, goes_on: impl Fn(&Path) -> bool) -> Result<()> {
        let mut finished = Ok(());
        while let Some((place, entry)) = self.unfinished.pop_if(|(place, _)| !goes_on(place)) {
            let (mode, owner) = (self.mode(&entry), self.owner(&entry));
            let dressed = self.places.parent(&place).and_then(|(parent, name)| {
                let directory =
                    open_directory(parent, name, OFlags::RDONLY).attempt("open", &place)?;
                dress(&directory, mode, owner, entry.modified, &place)
            });
            finished = finished.and(dressed);
        }
        finished
    }

    fn mode(&self, entry: &Entry) -> Mode {
        let kept = if self.rules.set_id { 0o7777 } else { 0o1777 };
        Mode::from_raw_mode(entry.mode & kept)
    }

    fn owner(&self, entry: &Entry) -> Option<(Uid, Gid)> {
        // The largest number means nobody.
        let is_possible = entry.uid != u32::MAX && entry.gid != u32::MAX;
        (self.rules.owners && is_possible)
            .then(|| (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid)))
    }
}

fn copy(from: &mut impl Read, to: &mut File, size: u64, place: &Path) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = size;
    while left > 0 {
        match from.read(&mut buffer) {
            Ok(0) => {
                return Err(Error::Archive {
                    reason: "it ends in the middle of a file",
                });
            }
            Ok(read) => {
                to.write_all(&buffer[..read]).attempt("write", place)?;
                left = left.saturating_sub(read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(Error::Stream {
                    attempt: "read",
                    source,
                });
            }
        }
    }
    Ok(())
}

/// The owner comes first: changing it takes away bits of the mode.
fn dress(
    file: &impl AsFd,
    mode: Mode,
    owner: Option<(Uid, Gid)>,
    modified: Time,
    place: &Path,
) -> Result<()> {
    if let Some((user, group)) = owner {
        fchown(file, Some(user), Some(group)).attempt("change the owner of", place)?;
    }
    fchmod(file, mode).attempt("change the mode of", place)?;
    futimens(file, &times(modified)).attempt("set the time of", place)
}

fn times(modified: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: modified.seconds,
            tv_nsec: modified.nanoseconds.into(),
        },
    }
}
