//! Whether a program runs where there is no loader.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const HEADER_BYTES: usize = 64;
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// A segment that names a loader.
const INTERPRETER: u32 = 3;
/// A program has some ten segments.
const SEGMENTS_MAX: u16 = 128;

/// Whether the kernel would look for a loader to run the program at `path`. What is no 64-bit
/// little-endian ELF, such as a script, needs another program too.
pub(super) fn needs_loader(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut header = [0; HEADER_BYTES];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
        other => other?,
    }
    let Some(table) = Table::of(&header) else {
        return Ok(true);
    };
    file.seek(SeekFrom::Start(table.offset))?;
    let mut segments = vec![0; usize::from(table.entries) * usize::from(table.entry_bytes)];
    file.read_exact(&mut segments)?;
    Ok(segments
        .chunks_exact(usize::from(table.entry_bytes))
        .any(|segment| segment.starts_with(&INTERPRETER.to_le_bytes())))
}

/// Where the segments are described.
struct Table {
    offset: u64,
    entry_bytes: u16,
    entries: u16,
}

impl Table {
    fn of(header: &[u8; HEADER_BYTES]) -> Option<Self> {
        let number = |at: usize| Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?));
        let table = Self {
            offset: u64::from_le_bytes(header.get(32..40)?.try_into().ok()?),
            entry_bytes: number(54)?,
            entries: number(56)?,
        };
        let sound =
            header.starts_with(MAGIC) && table.entry_bytes >= 4 && table.entries <= SEGMENTS_MAX;
        sound.then_some(table)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn needs(bytes: &[u8]) -> io::Result<bool> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        needs_loader(file.path())
    }

    fn program(segments: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..6].copy_from_slice(MAGIC);
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(segments.len()).unwrap();
        for segment in segments {
            bytes.extend(segment.to_le_bytes());
            bytes.extend([0; 52]);
        }
        bytes
    }

    #[test]
    fn a_loader_is_found() {
        assert!(!needs(&program(&[1, 1, 2])).unwrap());
        assert!(needs(&program(&[1, INTERPRETER])).unwrap());
        assert!(!needs(&program(&[])).unwrap());
    }

    #[test]
    fn what_is_no_program_is_not_run() {
        assert!(needs(b"#!/bin/sh").unwrap());
        assert!(needs(&[0; 100]).unwrap());
        // It says that it has a segment, and ends before.
        assert!(needs(&program(&[1])[..HEADER_BYTES]).is_err());
        let mut endless = program(&[1]);
        endless[56] = 255;
        assert!(needs(&endless).unwrap());
    }
}
