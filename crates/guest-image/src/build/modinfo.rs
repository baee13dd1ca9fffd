//! What a kernel module says about itself in its section `.modinfo`.

use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, pod};

use super::list::normal_name;

/// What ends a signed module.
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";

/// Bytes between the signature and the mark: five small fields, three of padding, a length.
const SIGNATURE_INFO_BYTES: usize = 12;

/// What matters here of a module's description.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// Modules that must be loaded before.
    pub depends: Vec<String>,
    /// Modules or aliases that should be loaded before, where they exist.
    pub soft_before: Vec<String>,
    /// Other names of the module.
    pub aliases: Vec<String>,
}

impl ModInfo {
    /// Reads the description of an unpacked module.
    ///
    /// # Errors
    /// A text that says why it is no module.
    pub fn of_module(file: &[u8]) -> Result<Self, String> {
        let header = FileHeader64::<Endianness>::parse(file)
            .map_err(|e| format!("it is no 64-bit ELF file: {e}"))?;
        let endian = header.endian().map_err(|e| e.to_string())?;
        let sections = header.sections(endian, file).map_err(|e| e.to_string())?;
        let (_, section) = sections
            .section_by_name(endian, b".modinfo")
            .ok_or("it has no section .modinfo")?;
        let data = section.data(endian, file).map_err(|e| e.to_string())?;
        Ok(Self::parse(pod::bytes_of_slice::<u8>(data)))
    }

    /// Reads texts of the form `key=value`, each with a zero behind it.
    pub fn parse(section: &[u8]) -> Self {
        let mut info = Self::default();
        for entry in section.split(|b| *b == 0) {
            let entry = String::from_utf8_lossy(entry);
            match entry.split_once('=') {
                Some(("depends", names)) => {
                    info.depends
                        .extend(names.split(',').filter(|n| !n.is_empty()).map(normal_name));
                }
                Some(("softdep", text)) => info.soft_before.extend(soft_before(text)),
                Some(("alias", name)) => info.aliases.push(normal_name(name)),
                _ => {}
            }
        }
        info
    }
}

/// The names between `pre:` and `post:`.
fn soft_before(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut before = false;
    text.split_whitespace().filter_map(move |word| match word {
        "pre:" | "post:" => {
            before = word == "pre:";
            None
        }
        name => before.then(|| normal_name(name)),
    })
}

/// A module without the signature that may be behind it.
///
/// The kernel checks a signature at each load, which takes milliseconds under emulation. The guest's
/// modules come from an initrd that the host has checked as a whole.
pub fn without_signature(file: &[u8]) -> &[u8] {
    let Some(signed) = file.strip_suffix(SIGNATURE_MARK) else {
        return file;
    };
    let Some((rest, length)) = signed.split_last_chunk::<4>() else {
        return file;
    };
    let length = u32::from_be_bytes(*length) as usize;
    let behind = length.saturating_add(SIGNATURE_INFO_BYTES - 4);
    rest.len()
        .checked_sub(behind)
        .map_or(file, |end| &rest[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_are_read() {
        let info = ModInfo::parse(
            b"license=GPL\0depends=virtio-ring,virtio\0\0softdep=pre: crc32c crypto-x post: later\0alias=fs-ext4\0",
        );
        assert_eq!(info.depends, ["virtio_ring", "virtio"]);
        assert_eq!(info.soft_before, ["crc32c", "crypto_x"]);
        assert_eq!(info.aliases, ["fs_ext4"]);
        assert_eq!(ModInfo::parse(b"depends=\0"), ModInfo::default());
    }

    proptest! {
        #[test]
        fn a_signature_is_taken_off(body: Vec<u8>, signature in prop::collection::vec(any::<u8>(), 0..100)) {
            let length = (signature.len() as u32).to_be_bytes();
            let signed = [&body[..], &signature, &[0, 0, 2, 0, 0, 0, 0, 0], &length, SIGNATURE_MARK].concat();
            prop_assert_eq!(without_signature(&signed), &body[..]);
        }

        #[test]
        fn any_bytes_give_an_answer(bytes: Vec<u8>) {
            let _ = ModInfo::of_module(&bytes);
            let _ = without_signature(&bytes);
            let _ = without_signature(&[&bytes[..], SIGNATURE_MARK].concat());
        }
    }
}
