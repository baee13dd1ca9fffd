//! The modules that a start does not load: packed one by one into one archive, which the initrd
//! holds as one file.
//!
//! A boot pays for copying that file's bytes and for nothing else: no module is a file of its own
//! there, and none is unpacked. The kernel's helper in the guest, which is the agent, finds a
//! module by the archive's first entry, the index, and hands it to the kernel as it is packed.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::cpio::{Archive, Entry};
use super::modules::{ModuleIndex, Resolved};
use crate::{Error, Result};

/// The archive's path in the initrd.
pub const ARCHIVE: &str = "lib/modules.cpio";

/// The archive's first entry.
pub const INDEX: &str = "index.json";

/// Bytes of an archive. It is copied at every start.
pub const ARCHIVE_BYTES_MAX: usize = 4 << 20;

/// `index.json`, as the agent reads it.
#[derive(Debug, Default, Serialize)]
struct Index {
    /// What must be loaded for a module, itself as the last.
    modules: BTreeMap<String, Vec<String>>,
    /// The module that a name stands for. A name may end with `*`.
    aliases: BTreeMap<String, String>,
}

/// An archive of modules.
#[derive(Debug)]
pub struct ModuleArchive {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The modules in it, sorted.
    pub names: Vec<String>,
}

/// Packs every module of a kernel that a list does not load; nothing where there is none.
///
/// # Errors
/// [`Error::NoModule`] and [`Error::DependencyCycle`] for modules that do not fit together,
/// [`Error::ArchiveTooLarge`], [`Error::InvalidInput`] for a damaged module, [`Error::Io`].
pub fn pack(index: &ModuleIndex, loaded: &Resolved) -> Result<Option<ModuleArchive>> {
    let mut content = Index::default();
    let mut entries = Vec::new();
    let mut orders = index.orders()?;
    let present = |name: &str| loaded.files().any(|module| module.name() == name);
    for module in orders.take_modules() {
        let name = module.name();
        if present(name) {
            continue;
        }
        let mut order = orders.of(name)?;
        // What the list loads is loaded when it is wanted, by the agent's own list.
        order.retain(|needed| !present(needed));
        content.modules.insert(name.to_owned(), order);
        for alias in module.aliases().iter().filter(|alias| is_asked_for(alias)) {
            content
                .aliases
                .entry(alias.clone())
                .or_insert_with(|| name.to_owned());
        }
        entries.push((format!("{name}.ko.gz"), gzip(module.content())));
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let mut archive = Archive::default();
    // Plain data with string keys: serde_json cannot fail on it.
    let text = serde_json::to_vec(&content).unwrap_or_default();
    for (path, content) in [(INDEX.to_owned(), text)].iter().chain(&entries) {
        let executable = false;
        archive.add(
            path,
            Entry::File {
                content,
                executable,
            },
        );
    }
    let bytes = archive.finish();
    if bytes.len() > ARCHIVE_BYTES_MAX {
        return Err(Error::ArchiveTooLarge {
            size: bytes.len(),
            limit: ARCHIVE_BYTES_MAX,
        });
    }
    let names = content.modules.into_keys().collect();
    Ok(Some(ModuleArchive { bytes, names }))
}

/// Whether the kernel can ask for a module by this name. It asks for protocols, file systems and
/// extensions by their exact names, and for a device's number; descriptions of hardware are for a
/// device manager, which a guest has not.
fn is_asked_for(alias: &str) -> bool {
    match alias.split_once('*') {
        None => !alias.contains(['?', '[', ':']),
        Some((begin, "")) => begin.starts_with("block_major_") || begin.starts_with("char_major_"),
        Some(_) => false,
    }
}

/// Without a name and a time, so that the same module gives the same bytes.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    // A vector takes whatever is written to it.
    let _ = packed.write_all(content);
    packed.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_of_hardware_are_left_out() {
        for (alias, asked_for) in [
            ("net_pf_16_proto_12", true),
            ("fs_xfs", true),
            ("block_major_7_*", true),
            ("char_major_10_200", true),
            ("devname:loop_control", false),
            ("pci:v00001AF4d*sv*", false),
            ("virtio:d00000008v*", false),
            ("cpu:type:x86,ven*fam*mod*:feature:*0099*", false),
        ] {
            assert_eq!(is_asked_for(alias), asked_for, "{alias}");
        }
    }
}
