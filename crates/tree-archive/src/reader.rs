//! The entries of an archive whose writer may be an enemy.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use tar::{EntryType, Header, PaxExtensions};

use crate::entry::{Entry, Kind, Time};
use crate::error::{Error, Result};
use crate::writer::{BLOCK, padding};

/// Bytes of a name, as the kernel's paths.
const NAME_BYTES_MAX: usize = 4096;

/// Bytes of what goes before an entry to describe it.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;

/// Bytes behind the end of an archive: it is padded to whole records.
const TRAILER_BYTES_MAX: u64 = 1 << 20;

/// An archive that is being read. As [`Read`] it is the contents of the last entry.
pub(crate) struct Reader<R> {
    source: R,
    /// Contents of the last entry that were not read.
    left: u64,
    padding: usize,
}

/// What came before an entry and describes it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<Time>,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry; none at the end of the archive, which has to be said by it.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_contents()?;
            let mut header = Header::new_old();
            self.exact(header.as_mut_bytes())?;
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                self.trailer()?;
                return Ok(None);
            }
            check_sum(&header)?;
            let size = header
                .entry_size()
                .map_err(|_| bad("a size is no number"))?;
            let kind = header.entry_type();
            match kind {
                EntryType::XHeader => extensions.records(&self.extension(size)?)?,
                EntryType::GNULongName => extensions.path = Some(name(self.extension(size)?)?),
                EntryType::GNULongLink => extensions.link = Some(name(self.extension(size)?)?),
                // Of the whole archive, such as a comment.
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                kind => return self.entry(&header, kind, size, extensions).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        extensions: Extensions,
    ) -> Result<Entry> {
        let path = match extensions.path {
            Some(path) => path,
            None => name(header.path_bytes().into_owned())?,
        };
        let entry_name = path_of(&path);
        let refuse = |reason| Error::Entry {
            name: entry_name.clone(),
            reason,
        };
        let kind = match kind {
            // As archives before POSIX say that.
            EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::GNUSparse => return Err(refuse("is a sparse file, which is not supported")),
            _ => return Err(refuse("is of an unknown kind")),
        };
        let link = match (kind, extensions.link) {
            (Kind::Symlink | Kind::HardLink, Some(link)) => Some(link),
            (Kind::Symlink | Kind::HardLink, None) => {
                let link = header.link_name_bytes().map(|link| link.into_owned());
                Some(name(link.unwrap_or_default())?)
            }
            _ => None,
        };
        let number = |read: io::Result<u64>, given: Option<u64>| match given {
            Some(number) => Ok(number),
            None => read.map_err(|_| refuse("has a number that is none")),
        };
        let id = |number: u64| u32::try_from(number).map_err(|_| refuse("has an impossible owner"));
        let modified = match extensions.modified {
            Some(time) => time,
            None => Time {
                seconds: i64::try_from(number(header.mtime(), None)?)
                    .map_err(|_| refuse("has an impossible time"))?,
                nanoseconds: 0,
            },
        };
        let size = extensions.size.unwrap_or(size);
        // Other kinds have no contents, whatever the number says they are skipped.
        self.left = size;
        self.padding = padding(size);
        Ok(Entry {
            kind,
            link: link.as_deref().map(path_of),
            mode: header
                .mode()
                .map_err(|_| refuse("has a mode that is none"))?
                & 0o7777,
            uid: id(number(header.uid(), extensions.uid)?)?,
            gid: id(number(header.gid(), extensions.gid)?)?,
            modified,
            size,
            device: (0, 0),
            name: entry_name,
        })
    }

    /// What describes the next entry, of bounded size.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION_BYTES_MAX {
            return Err(bad("a description is too long"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.exact(&mut bytes)?;
        self.padding = padding(size);
        Ok(bytes)
    }

    fn skip_contents(&mut self) -> Result<()> {
        let skipped = self.left.saturating_add(self.padding as u64);
        let copied = io::copy(&mut (&mut self.source).take(skipped), &mut io::sink());
        if copied.map_err(unreadable)? != skipped {
            return Err(bad("it ends in the middle of an entry"));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads to the end, so that whoever writes is not cut off.
    fn trailer(&mut self) -> Result<()> {
        let mut rest = (&mut self.source).take(TRAILER_BYTES_MAX);
        match io::copy(&mut rest, &mut io::sink()).map_err(unreadable)? {
            TRAILER_BYTES_MAX => Err(bad("it goes on behind its end")),
            _ => Ok(()),
        }
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        match self.source.read_exact(bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(bad("it ends before its end is said"))
            }
            read => read.map_err(unreadable),
        }
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.source.read(&mut buffer[..length])?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Extensions {
    fn records(&mut self, records: &[u8]) -> Result<()> {
        for extension in PaxExtensions::new(records) {
            let extension = extension.map_err(|_| bad("a pax record is malformed"))?;
            let value = extension.value_bytes();
            let text = || {
                extension
                    .value()
                    .map_err(|_| bad("a pax record is no text"))
            };
            let number = || {
                let number = text()?.parse::<u64>();
                number
                    .map(Some)
                    .map_err(|_| bad("a pax record is no number"))
            };
            match extension.key_bytes() {
                b"path" => self.path = Some(name(value.to_vec())?),
                b"linkpath" => self.link = Some(name(value.to_vec())?),
                b"size" => self.size = number()?,
                b"uid" => self.uid = number()?,
                b"gid" => self.gid = number()?,
                b"mtime" => {
                    let time = Time::parse(text()?).ok_or_else(|| bad("a time is none"))?;
                    self.modified = Some(time);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(bad("it has a sparse file, which is not supported"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A name without the bytes that end it.
fn name(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    match bytes.len() {
        0 => Err(bad("a name is empty")),
        1..NAME_BYTES_MAX => Ok(bytes),
        _ => Err(bad("a name is too long")),
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn check_sum(header: &Header) -> Result<()> {
    let bytes = header.as_bytes();
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = bytes[148..156].iter().map(|byte| u32::from(*byte)).sum();
    match header.cksum() {
        Ok(said) if said == sum - own + 8 * u32::from(b' ') => Ok(()),
        _ => Err(bad("a header has another checksum than it says")),
    }
}

fn bad(reason: &'static str) -> Error {
    Error::Archive { reason }
}

fn unreadable(source: io::Error) -> Error {
    Error::Stream {
        attempt: "read",
        source,
    }
}

const _: () = assert!(BLOCK == size_of::<Header>());
