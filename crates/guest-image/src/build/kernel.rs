//! From a packed kernel to an ELF file that QEMU starts directly.
//!
//! A `vmlinuz` is a small program that unpacks the kernel behind it, which takes its time under
//! emulation. Unpacked here once, the kernel is entered by its PVH note instead.

use std::path::Path;

use object::elf::{FileHeader64, NoteType, PT_LOAD, PT_NOTE, ProgramHeader64, SHN_UNDEF};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, U16, U64, pod};

use vc_types::guest;

use super::compression;
use crate::{Error, Result};

/// The note by which a VMM finds the entry of the PVH boot protocol, and its owner.
const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);
const XEN_NOTE_NAME: &[u8] = b"Xen";

/// Alignment of the segments in the file that is written.
const PAGE_BYTES: usize = 4096;

type Header = FileHeader64<Endianness>;
type Segment = ProgramHeader64<Endianness>;

/// A kernel ready to be started.
#[derive(Debug)]
pub struct Kernel {
    /// The ELF file.
    pub vmlinux: Vec<u8>,
    /// What the kernel calls itself; nothing for one that was given unpacked.
    pub release: Option<String>,
}

impl Kernel {
    /// Whether it takes the parameter by which devices are known by their class.
    pub fn types_by_class(&self) -> bool {
        // As a kernel has it, with its end.
        let name = format!("{}\0", guest::TYPE_BY_CLASS_PARAM);
        let mut places = self.vmlinux.windows(name.len());
        places.any(|place| place == name.as_bytes())
    }
}

/// Unpacks a kernel, or takes one that is unpacked already; `path` is only for the error's text.
///
/// # Errors
/// [`Error::InvalidInput`] when it is no x86-64 Linux kernel, is packed in a way that is not
/// known, or has no PVH entry.
pub fn unpack(file: &[u8], path: &Path) -> Result<Kernel> {
    let invalid = |reason: String| Error::input(path, "a kernel", reason);
    let (elf, release) = if file.starts_with(b"\x7fELF") {
        (file.to_vec(), None)
    } else {
        let image = BootImage::parse(file).map_err(|e| invalid(e.into()))?;
        let unpacked = compression::unpack(image.payload)
            .map_err(|e| invalid(format!("its payload cannot be unpacked: {e}")))?
            .ok_or_else(|| invalid("its payload is packed in a way that is not known".into()))?;
        (unpacked, image.release)
    };
    let vmlinux = compact(&elf).map_err(invalid)?;
    Ok(Kernel { vmlinux, release })
}

/// The parts of a `bzImage` that matter here (the kernel's `x86/boot` documentation has them all).
struct BootImage<'a> {
    payload: &'a [u8],
    release: Option<String>,
}

impl<'a> BootImage<'a> {
    fn parse(file: &'a [u8]) -> Result<Self, &'static str> {
        let word = |at: usize| {
            file.get(at..at + 2)
                .map(|b| u16::from_le_bytes([b[0], b[1]]).into())
        };
        let long = |at: usize| {
            file.get(at..at + 4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
        };
        if file.get(0x202..0x206) != Some(b"HdrS") {
            return Err("it is neither an ELF file nor a bzImage");
        }
        // 2.08 is the first version that says where the payload is.
        let version: usize = word(0x206).unwrap_or(0);
        if version < 0x208 {
            return Err("its boot protocol is older than 2.08");
        }
        let sectors = match file.get(0x1f1) {
            None | Some(0) => 4,
            Some(&n) => usize::from(n),
        };
        let at = (sectors + 1) * 512 + long(0x248).ok_or("it is too short")?;
        let size = long(0x24c).ok_or("it is too short")?;
        let payload = file
            .get(at..)
            .and_then(|f| f.get(..size))
            .ok_or("its payload is cut off")?;
        let release = word(0x20e).filter(|at| *at != 0).and_then(|at: usize| {
            let text = file.get(at + 0x200..)?;
            let end = text.iter().take(256).position(|b| matches!(b, b' ' | 0))?;
            Some(String::from_utf8_lossy(&text[..end]).into_owned())
        });
        Ok(Self { payload, release })
    }
}

/// Writes the ELF file anew with what a VMM reads and nothing else: no sections, no gaps, and no
/// zeros at the end of a segment, which the VMM provides anyway. That is a third less to read and
/// to copy at each start; what is in memory afterwards is the same.
fn compact(elf: &[u8]) -> Result<Vec<u8>, String> {
    let header = Header::parse(elf).map_err(|e| format!("it is no 64-bit ELF file: {e}"))?;
    let endian = header.endian().map_err(|e| e.to_string())?;
    let segments = header
        .program_headers(endian, elf)
        .map_err(|e| e.to_string())?;
    if !segments.iter().any(|s| has_pvh_entry(s, endian, elf)) {
        return Err("it has no PVH entry (it was built without CONFIG_PVH)".into());
    }

    let mut kept: Vec<Segment> = segments
        .iter()
        .filter(|s| matches!(s.p_type(endian), PT_LOAD | PT_NOTE))
        .copied()
        .collect();
    let mut out = vec![0; size_of::<Header>() + kept.len() * size_of::<Segment>()];
    let mut moved = Vec::new();
    for segment in kept.iter_mut().filter(|s| s.p_type(endian) == PT_LOAD) {
        let data = segment
            .data(endian, elf)
            .map_err(|()| "a segment is cut off".to_string())?;
        let used = data
            .iter()
            .rposition(|b| *b != 0)
            .map_or(0, |last| last + 1);
        out.resize(out.len().next_multiple_of(PAGE_BYTES), 0);
        moved.push((
            segment.p_offset(endian),
            data.len() as u64,
            out.len() as u64,
        ));
        segment.p_offset = U64::new(endian, out.len() as u64);
        segment.p_filesz = U64::new(endian, used as u64);
        out.extend_from_slice(&data[..used]);
    }
    // Notes lie inside a loaded segment.
    for note in kept.iter_mut().filter(|s| s.p_type(endian) == PT_NOTE) {
        let at = note.p_offset(endian);
        let (old, _, new) = moved
            .iter()
            .find(|(old, size, _)| (*old..old + size).contains(&at))
            .ok_or("its notes are not part of what is loaded")?;
        note.p_offset = U64::new(endian, at - old + new);
    }
    let mut header = *header;
    header.e_phoff = U64::new(endian, size_of::<Header>() as u64);
    header.e_phnum = U16::new(endian, kept.len() as u16);
    header.e_shoff = U64::new(endian, 0);
    header.e_shnum = U16::new(endian, 0);
    header.e_shstrndx = U16::new(endian, SHN_UNDEF);
    let head = [pod::bytes_of(&header), pod::bytes_of_slice(&kept)].concat();
    out[..head.len()].copy_from_slice(&head);
    Ok(out)
}

fn has_pvh_entry(segment: &Segment, endian: Endianness, elf: &[u8]) -> bool {
    let Ok(Some(mut notes)) = segment.notes(endian, elf) else {
        return false;
    };
    while let Ok(Some(note)) = notes.next() {
        if note.name() == XEN_NOTE_NAME && note.n_type(endian) == XEN_ELFNOTE_PHYS32_ENTRY {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use object::U32;
    use object::elf::ET_EXEC;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_kernel_that_knows_classes_has_the_parameter() {
        let knows = |parameters: &[u8]| {
            let kernel = Kernel {
                vmlinux: [b"code", parameters, b"more"].concat(),
                release: None,
            };
            kernel.types_by_class()
        };
        assert!(knows(b"virtio_pci_modern_dev.type_by_class\0"));
        assert!(!knows(b"virtio_pci_modern_dev.type_by_classes\0"));
        assert!(!knows(b""));
    }

    const NOTE: &[u8] = b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\0\0\0\x01";

    /// An ELF file with one loaded segment that ends in zeros, and a note inside it.
    fn elf(note: &[u8]) -> Vec<u8> {
        let e = Endianness::Little;
        let segment = |kind, offset: u64, size: u64| Segment {
            p_type: U32::new(e, kind),
            p_flags: U32::new(e, object::elf::ProgramFlags(0)),
            p_offset: U64::new(e, offset),
            p_vaddr: U64::new(e, 0),
            p_paddr: U64::new(e, 0),
            p_filesz: U64::new(e, size),
            p_memsz: U64::new(e, size),
            p_align: U64::new(e, 4),
        };
        let mut data = [b"code".as_slice(), note].concat();
        data.resize(20_000, 0);
        let segments = [
            segment(PT_LOAD, 10_000, 20_000),
            segment(PT_NOTE, 10_004, note.len() as u64),
        ];
        let mut header: Header = *pod::from_bytes(&[0; size_of::<Header>()]).unwrap().0;
        header.e_ident.magic = *b"\x7fELF";
        header.e_ident.class = object::elf::ELFCLASS64;
        header.e_ident.data = object::elf::ELFDATA2LSB;
        header.e_ident.version = object::elf::EV_CURRENT;
        header.e_type = U16::new(e, ET_EXEC);
        header.e_phoff = U64::new(e, size_of::<Header>() as u64);
        header.e_phentsize = U16::new(e, size_of::<Segment>() as u16);
        header.e_phnum = U16::new(e, 2);
        let mut file = [pod::bytes_of(&header), pod::bytes_of_slice(&segments)].concat();
        file.resize(10_000, 0);
        file.extend(data);
        file
    }

    #[test]
    fn a_kernel_is_written_without_gaps_and_trailing_zeros() {
        let kernel = unpack(&elf(NOTE), Path::new("vmlinux")).unwrap();
        assert_eq!(kernel.vmlinux.len(), PAGE_BYTES + 4 + NOTE.len());
        assert_eq!(kernel.vmlinux[PAGE_BYTES..], [b"code", NOTE].concat());
        // The note is still found, and there is nothing more to take away.
        let again = unpack(&kernel.vmlinux, Path::new("vmlinux")).unwrap();
        assert_eq!(again.vmlinux, kernel.vmlinux);
    }

    #[test]
    fn a_kernel_without_the_entry_is_refused() {
        let other = NOTE
            .iter()
            .map(|b| if *b == 0x12 { 0x11 } else { *b })
            .collect::<Vec<_>>();
        let error = unpack(&elf(&other), Path::new("vmlinux")).unwrap_err();
        assert!(error.to_string().contains("no PVH entry"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(
            mut bytes in prop::collection::vec(any::<u8>(), 0..2000), elf_magic: bool,
        ) {
            if elf_magic {
                bytes.splice(0..4.min(bytes.len()), *b"\x7fELF");
            } else if bytes.len() > 0x206 {
                bytes.splice(0x202..0x206, *b"HdrS");
            }
            let _ = unpack(&bytes, Path::new("vmlinuz"));
        }

        #[test]
        fn a_damaged_kernel_gives_an_answer(at in 0..200usize, byte: u8) {
            let mut file = elf(NOTE);
            file[at] = byte;
            let _ = unpack(&file, Path::new("vmlinux"));
        }
    }
}
