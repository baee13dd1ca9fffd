//! The archive of modules that no list names: the kernel asks for one, and its helper hands it over.
//!
//! The archive is one file of the initramfs, so the boot has only copied it. The kernel's helper is
//! this program, started anew as `/sbin/modprobe -q -- NAME`: a link in the guest's own root, which no
//! container sees. That process finds the module by the archive's first entry, with what must be loaded
//! before it, and gives the packed bytes to the kernel, which unpacks them.
//!
//! What containers do can make the kernel ask, as on any host; they cannot start the helper, and a
//! name is only looked up.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::process::ExitCode;

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use rustix::io::Errno;
use serde::Deserialize;

use crate::error::{Attempt as _, Error, Result};

/// Where the image tool puts the archive.
const ARCHIVE_PATH: &str = "lib/modules.cpio";

/// Where the helper finds it: a link that leads into the initramfs.
const LINK: &str = "/lib/modules.cpio";

/// Where the kernel looks for its helper, and the program that is the helper: the first process's.
const HELPER: &str = "/sbin/modprobe";
const PROGRAM: &str = "/proc/1/exe";

/// What the kernel starts its helper with, before the name.
const HELPER_ARGUMENTS: [&str; 2] = ["-q", "--"];

/// Bytes of a name that the kernel asks for: its own limit is 56.
const NAME_BYTES_MAX: usize = 64;

/// Bytes of the index. Ours has some thirty thousand.
const INDEX_BYTES_MAX: u32 = 1 << 20;

/// Bytes of one packed module.
const MODULE_BYTES_MAX: u32 = 16 << 20;

/// Modules that are loaded for one request.
const ORDER_MAX: usize = 64;

/// The kernel's flag for a module that it has to unpack.
const COMPRESSED_FILE: i32 = 4;

/// Bytes of an entry's header, and where two of its fields of eight hexadecimal digits are.
const HEADER_BYTES: usize = 110;
const FILE_SIZE_AT: usize = 54;
const NAME_SIZE_AT: usize = 94;
const MAGIC: &[u8] = b"070701";

/// The archive's first entry.
#[derive(Debug, Default, Deserialize)]
struct Index {
    /// What must be loaded for a module, itself as the last.
    modules: BTreeMap<String, Vec<String>>,
    /// The module that a name stands for. A name may end with `*`.
    aliases: BTreeMap<String, String>,
}

/// Lets the helper find the archive, if the initramfs has one.
pub(crate) fn offer(initramfs: BorrowedFd<'_>) -> Result<()> {
    let attempt = || "offer the archive of modules".into();
    match rustix::fs::statat(initramfs, ARCHIVE_PATH, rustix::fs::AtFlags::empty()) {
        Ok(_) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error).attempt(attempt),
    }
    // The descriptor stays open as long as the agent lives.
    let target = format!("/proc/1/fd/{}/{ARCHIVE_PATH}", initramfs.as_raw_fd());
    for (dir, target, link) in [("/lib", target.as_str(), LINK), ("/sbin", PROGRAM, HELPER)] {
        std::fs::create_dir(dir).attempt(attempt)?;
        std::os::unix::fs::symlink(target, link).attempt(attempt)?;
    }
    Ok(())
}

/// Serves as the kernel's helper and returns how that ended, if the arguments are those.
pub(crate) fn dispatch(arguments: &[String]) -> Option<ExitCode> {
    let [_, quiet, end, name] = arguments else {
        return None;
    };
    if [quiet, end] != HELPER_ARGUMENTS {
        return None;
    }
    // The kernel looks for what it asked for itself; nobody else reads an answer.
    Some(match File::open(LINK).attempt(|| format!("open {LINK}")) {
        Ok(archive) => match load(archive, name) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) | Err(_) => ExitCode::FAILURE,
        },
        Err(_) => ExitCode::FAILURE,
    })
}

/// Loads the module that a name stands for, with what it needs. There may be none.
fn load(mut archive: File, name: &str) -> Result<bool> {
    let index = read_index(&mut archive)?;
    let Some(order) = index.order(name) else {
        return Ok(false);
    };
    let mut packed = read_modules(&mut archive, order)?;
    for module in order {
        let bytes = packed.remove(module).ok_or_else(|| Error::State {
            object: format!("module {module}"),
            state: "not in the archive",
        })?;
        insert(module, &bytes)?;
    }
    Ok(true)
}

/// Gives a packed module to the kernel, which reads it from a file that nobody may be writing.
fn insert(name: &str, packed: &[u8]) -> Result<()> {
    let attempt = || format!("load module {name}");
    let memory = memfd_create("module", MemfdFlags::CLOEXEC).attempt(attempt)?;
    let mut writer = File::from(memory);
    writer.write_all(packed).attempt(attempt)?;
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let reader = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).attempt(attempt)?;
    drop(writer);
    match rustix::system::finit_module(&reader, &CString::default(), COMPRESSED_FILE) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).attempt(attempt),
    }
}

impl Index {
    /// What is to be loaded for a name that the kernel asks for.
    fn order(&self, name: &str) -> Option<&[String]> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let name = name.replace('-', "_");
        let module = self.modules.get_key_value(&name).map(|(module, _)| module);
        let module = module
            .or_else(|| self.aliases.get(&name))
            .or_else(|| self.by_beginning(&name))?;
        let order = self.modules.get(module)?;
        (order.len() <= ORDER_MAX).then_some(order)
    }

    fn by_beginning(&self, name: &str) -> Option<&String> {
        self.aliases
            .iter()
            .find(|(alias, _)| {
                alias
                    .strip_suffix('*')
                    .is_some_and(|begin| name.starts_with(begin))
            })
            .map(|(_, module)| module)
    }
}

fn read_index(archive: &mut File) -> Result<Index> {
    let entry = next_entry(archive)?.ok_or_else(damaged)?;
    if entry.size > INDEX_BYTES_MAX {
        return Err(damaged());
    }
    let text = read_content(archive, &entry)?;
    serde_json::from_slice(&text).map_err(|source| Error::Json {
        attempt: "read the index of modules".into(),
        source,
    })
}

/// Reads the wanted modules and steps over the others.
fn read_modules(archive: &mut File, wanted: &[String]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    while found.len() < wanted.len()
        && let Some(entry) = next_entry(archive)?
    {
        let name = entry.name.strip_suffix(".ko.gz");
        match name.filter(|name| wanted.iter().any(|wanted| wanted == name)) {
            Some(name) if entry.size <= MODULE_BYTES_MAX => {
                found.insert(name.to_owned(), read_content(archive, &entry)?);
            }
            Some(_) => return Err(damaged()),
            None => {
                archive
                    .seek(SeekFrom::Current(padded(entry.size.into()) as i64))
                    .attempt(reading)?;
            }
        }
    }
    Ok(found)
}

#[derive(Debug)]
struct Entry {
    name: String,
    size: u32,
}

/// Reads the next entry's header; nothing at the archive's end.
fn next_entry(archive: &mut File) -> Result<Option<Entry>> {
    let mut header = [0; HEADER_BYTES];
    archive.read_exact(&mut header).attempt(reading)?;
    let size = field(&header, FILE_SIZE_AT)?;
    let name_size = field(&header, NAME_SIZE_AT)? as usize;
    if !header.starts_with(MAGIC) || !(2..=NAME_BYTES_MAX * 2).contains(&name_size) {
        return Err(damaged());
    }
    // Header and name together are padded.
    let behind = padded((HEADER_BYTES + name_size) as u64) as usize - HEADER_BYTES;
    let mut name = vec![0; behind];
    archive.read_exact(&mut name).attempt(reading)?;
    name.truncate(name_size - 1);
    let name = String::from_utf8(name).map_err(|_| damaged())?;
    Ok((name != "TRAILER!!!").then_some(Entry { name, size }))
}

fn read_content(archive: &mut File, entry: &Entry) -> Result<Vec<u8>> {
    let mut content = vec![0; padded(entry.size.into()) as usize];
    archive.read_exact(&mut content).attempt(reading)?;
    content.truncate(entry.size as usize);
    Ok(content)
}

fn field(header: &[u8; HEADER_BYTES], at: usize) -> Result<u32> {
    let digits = std::str::from_utf8(&header[at..at + 8]).map_err(|_| damaged())?;
    u32::from_str_radix(digits, 16).map_err(|_| damaged())
}

const fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(4)
}

fn reading() -> String {
    "read the archive of modules".into()
}

fn damaged() -> Error {
    Error::State {
        object: "the archive of modules".into(),
        state: "damaged",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, content: &[u8]) -> Vec<u8> {
        let mut fields = [0; 13];
        fields[6] = content.len();
        fields[11] = name.len() + 1;
        let mut bytes = MAGIC.to_vec();
        for field in fields {
            bytes.extend(format!("{field:08x}").bytes());
        }
        bytes.extend(name.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn archive(entries: &[(&str, &[u8])]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for (name, content) in entries.iter().chain(&[("TRAILER!!!", &[][..])]) {
            file.write_all(&entry(name, content)).unwrap();
        }
        file.rewind().unwrap();
        file
    }

    const INDEX: &[u8] = br#"{
        "modules": {"llc": ["llc"], "bridge": ["llc", "bridge"], "loop": ["loop"]},
        "aliases": {"rtnl_link_bridge": "bridge", "block_major_7_*": "loop"}
    }"#;

    #[test]
    fn a_module_is_found_by_its_names_with_what_it_needs() {
        let entries: [(&str, &[u8]); 4] = [
            ("index.json", INDEX),
            ("bridge.ko.gz", b"the bridge"),
            ("llc.ko.gz", b"llc"),
            ("loop.ko.gz", b"l"),
        ];
        let mut file = archive(&entries);
        let index = read_index(&mut file).unwrap();
        for name in ["bridge", "rtnl-link-bridge"] {
            assert_eq!(index.order(name).unwrap(), ["llc", "bridge"]);
        }
        assert_eq!(index.order("block-major-7-3").unwrap(), ["loop"]);
        assert_eq!(index.order("block-major-8"), None);
        assert_eq!(index.order(&"a".repeat(300)), None);
        let order = index.order("bridge").unwrap().to_vec();
        let modules = read_modules(&mut file, &order).unwrap();
        assert_eq!(modules["bridge"], b"the bridge");
        assert_eq!(modules["llc"], b"llc");
        assert_eq!(modules.len(), 2);
    }

    #[test]
    fn a_damaged_archive_is_an_error() {
        let whole = [entry("index.json", INDEX), entry("TRAILER!!!", b"")].concat();
        for cut in [0, 50, 110, 130, whole.len() - 130] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&whole[..cut]).unwrap();
            file.rewind().unwrap();
            assert!(read_index(&mut file).is_err(), "{cut} bytes");
        }
        let mut file = archive(&[("index.json", b"{")]);
        assert!(matches!(read_index(&mut file), Err(Error::Json { .. })));
    }

    #[test]
    fn only_the_kernels_arguments_make_a_helper() {
        for arguments in [
            &["init"][..],
            &["init", "launch"],
            &["init", "-q", "-x", "a"],
        ] {
            let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
            assert!(dispatch(&arguments).is_none());
        }
    }
}
