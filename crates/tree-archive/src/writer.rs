//! Entries as the bytes of a tar archive, in the form that POSIX calls pax.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use tar::{EntryType, Header};

use crate::BUFFER_BYTES;
use crate::entry::{Entry, Kind};

pub(crate) const BLOCK: usize = 512;

pub(crate) struct Writer<W> {
    sink: W,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(sink: W) -> Self {
        Self { sink }
    }

    /// Writes the header. As many bytes as it says have to follow, by [`Writer::contents`].
    pub(crate) fn header(&mut self, entry: &Entry) -> io::Result<()> {
        let mut name = entry.name.as_os_str().as_bytes().to_vec();
        if entry.kind == Kind::Directory {
            name.push(b'/');
        }
        let link = entry.link.as_deref().map(Path::as_os_str);
        let link = link.map(|link| link.as_bytes()).unwrap_or_default();
        let mut header = Header::new_ustar();
        let mut records = Vec::new();
        let bytes = header.as_old_mut();
        if !place(&mut bytes.name, &name) {
            record(&mut records, "path", &name);
        }
        if !place(&mut bytes.linkname, link) {
            record(&mut records, "linkpath", link);
        }
        if let Some(time) = entry.modified.to_pax() {
            record(&mut records, "mtime", time.as_bytes());
        }
        header.set_entry_type(match entry.kind {
            Kind::File => EntryType::Regular,
            Kind::Directory => EntryType::Directory,
            Kind::Symlink => EntryType::Symlink,
            Kind::HardLink => EntryType::Link,
            Kind::Fifo => EntryType::Fifo,
            Kind::CharDevice => EntryType::Char,
            Kind::BlockDevice => EntryType::Block,
        });
        header.set_mode(entry.mode & 0o7777);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        header.set_mtime(u64::try_from(entry.modified.seconds).unwrap_or(0));
        header.set_size(entry.size);
        if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
            header.set_device_major(entry.device.0)?;
            header.set_device_minor(entry.device.1)?;
        }
        header.set_cksum();
        if !records.is_empty() {
            self.records(&records)?;
        }
        self.sink.write_all(header.as_bytes())
    }

    fn records(&mut self, records: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        place(&mut header.as_old_mut().name, b"pax");
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.sink.write_all(header.as_bytes())?;
        self.sink.write_all(records)?;
        self.pad(records.len() as u64)
    }

    /// Writes the contents of the entry before, of this size. Nothing else is said by an error of
    /// the source than that it came from there.
    pub(crate) fn contents(
        &mut self,
        source: &mut impl Read,
        size: u64,
    ) -> io::Result<Result<(), io::Error>> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            match source.read(&mut buffer[..wanted]) {
                Ok(0) => return Ok(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => {
                    self.sink.write_all(&buffer[..read])?;
                    left -= read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        self.pad(size)?;
        Ok(Ok(()))
    }

    /// Writes the end.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.sink.write_all(&[0; 2 * BLOCK])?;
        self.sink.flush()
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.sink.write_all(&[0; BLOCK][..padding(size)])
    }
}

/// Bytes between the end of an entry's contents and the next header.
pub(crate) fn padding(size: u64) -> usize {
    match (size % BLOCK as u64) as usize {
        0 => 0,
        over => BLOCK - over,
    }
}

/// Puts a name into a field of a header; where that is too short, its beginning.
fn place(field: &mut [u8], name: &[u8]) -> bool {
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
    length == name.len()
}

/// A record of pax begins with its own length, which counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}
