//! The initrd: the agent as `/init`, the modules, and the list by which the agent loads them.
//!
//! It is not packed: measured under emulation, unpacking in the guest costs as much as the
//! copying that a smaller file saves.

use std::collections::BTreeMap;
use std::path::Path;

use object::Endianness;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use serde::Serialize;

use super::archive::{ARCHIVE, ModuleArchive};
use super::cpio::{Archive, Entry};
use super::modules::Resolved;
use crate::{Error, Result};

/// Where the modules lie in the guest.
const MODULES_DIR: &str = "lib/modules";

/// The directories of the archive, parents first: mount points, and places of the files below.
const DIRECTORIES: &[&str] = &[
    "dev",
    "etc",
    "etc/virtc",
    "lib",
    MODULES_DIR,
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
];

/// `/etc/virtc/modules.json`, as the agent reads it.
#[derive(Serialize)]
struct LoadList {
    boot: Vec<String>,
    beside: Vec<String>,
    background: Vec<String>,
    on_demand: BTreeMap<String, Vec<String>>,
}

/// Refuses an agent that could not run as the guest's only program.
///
/// # Errors
/// [`Error::InvalidInput`] when it is no ELF program, or is linked dynamically.
pub fn check_agent(agent: &[u8], path: &Path) -> Result<()> {
    let invalid = |reason: &str| Error::input(path, "the agent", reason);
    let header = FileHeader64::<Endianness>::parse(agent)
        .map_err(|_| invalid("it is no 64-bit ELF program"))?;
    let endian = header
        .endian()
        .map_err(|_| invalid("it is no 64-bit ELF program"))?;
    let segments = header
        .program_headers(endian, agent)
        .map_err(|_| invalid("its program headers are damaged"))?;
    if segments.iter().any(|s| s.p_type(endian) == PT_INTERP) {
        return Err(invalid(
            "it is not linked statically, and the guest has no libraries",
        ));
    }
    Ok(())
}

/// Packs the archive.
pub fn pack(agent: &[u8], modules: &Resolved, packed: Option<&ModuleArchive>) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.add(directory, Entry::Directory);
    }
    archive.add("dev/console", Entry::CharDevice { major: 5, minor: 1 });
    archive.add(
        "init",
        Entry::File {
            content: agent,
            executable: true,
        },
    );
    let list = load_list(modules);
    archive.add(
        "etc/virtc/modules.json",
        Entry::File {
            content: &list,
            executable: false,
        },
    );
    for module in modules.files() {
        let path = format!("{MODULES_DIR}/{}.ko", module.name());
        archive.add(
            &path,
            Entry::File {
                content: module.content(),
                executable: false,
            },
        );
    }
    if let Some(packed) = packed {
        archive.add(
            ARCHIVE,
            Entry::File {
                content: &packed.bytes,
                executable: false,
            },
        );
    }
    archive.finish()
}

fn load_list(modules: &Resolved) -> Vec<u8> {
    let names = modules.names();
    let paths = |names: &[String]| -> Vec<String> {
        names
            .iter()
            .map(|name| format!("/{MODULES_DIR}/{name}.ko"))
            .collect()
    };
    let list = LoadList {
        boot: paths(&names.boot),
        beside: paths(&names.beside),
        background: paths(&names.background),
        on_demand: names
            .on_demand
            .iter()
            .map(|(key, list)| (key.clone(), paths(list)))
            .collect(),
    };
    // Plain data with string keys: serde_json cannot fail on it.
    serde_json::to_vec(&list).unwrap_or_default()
}
