//! Making a set of assets.
//!
//! [`package`] finds a kernel and its modules, [`kernel`] unpacks the kernel, [`modules`] finds the
//! modules that a [`list`] names with all that they need, in load [`order`], [`archive`] packs those
//! that no list names, [`initrd`] puts both together with the agent, [`set`] puts the result where
//! readers find it.

pub mod archive;
pub mod compression;
pub mod cpio;
pub mod initrd;
pub mod kernel;
pub mod list;
pub mod modinfo;
pub mod modules;
pub mod order;
pub mod package;
pub mod set;

use std::fs;
use std::path::{Path, PathBuf};

use crate::manifest::{ArchivedModules, Asset, FORMAT, Manifest};
use crate::{Error, Result};

/// Bytes of an initrd. A larger one costs at every start.
pub const INITRD_BYTES_MAX: u64 = 12 << 20;

/// The inputs of a set.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The kernel as its package has it, or unpacked already.
    pub kernel: &'a Path,
    /// The kernel's modules: a directory that is named as its release.
    pub modules: &'a Path,
    /// Which modules the guest needs.
    pub list: &'a list::ModuleList,
    /// The statically linked agent.
    pub agent: &'a Path,
    /// Whether the modules that the list does not name go along, for the kernel to ask for. It
    /// must be able to unpack them (`CONFIG_MODULE_DECOMPRESS`, gzip).
    pub archive: bool,
}

/// Makes a set from its inputs below `out`; returns the set's directory.
///
/// A set that is there already is left as it is.
///
/// # Errors
/// [`Error::InvalidInput`], [`Error::NoModule`] and [`Error::DependencyCycle`] for inputs that do
/// not fit, [`Error::InitrdTooLarge`], and [`Error::Io`].
pub fn build(inputs: &Inputs<'_>, out: &Path) -> Result<PathBuf> {
    let packed = fs::read(inputs.kernel).map_err(Error::io("read", inputs.kernel))?;
    let kernel = kernel::unpack(&packed, inputs.kernel)?;
    let index = modules::ModuleIndex::open(inputs.modules)?;
    if let Some(release) = &kernel.release
        && release != index.release()
    {
        let reason = format!(
            "its release is {release}, the modules are for {}",
            index.release()
        );
        return Err(Error::input(inputs.kernel, "a kernel", reason));
    }
    let modules = index.resolve(inputs.list)?;
    let agent = fs::read(inputs.agent).map_err(Error::io("read", inputs.agent))?;
    initrd::check_agent(&agent, inputs.agent)?;
    let archive = match inputs.archive {
        true => archive::pack(&index, &modules)?,
        false => None,
    };
    let initrd = initrd::pack(&agent, &modules, archive.as_ref());
    if initrd.len() as u64 > INITRD_BYTES_MAX {
        return Err(Error::InitrdTooLarge {
            size: initrd.len() as u64,
            limit: INITRD_BYTES_MAX,
        });
    }
    let manifest = Manifest {
        format: FORMAT,
        kernel_release: index.release().to_owned(),
        types_by_class: kernel.types_by_class(),
        vmlinux: Asset::of(&kernel.vmlinux),
        initrd: Asset::of(&initrd),
        agent: Asset::of(&agent),
        archive: archive.as_ref().map(|archive| ArchivedModules {
            file: Asset::of(&archive.bytes),
            modules: archive.names.clone(),
        }),
        modules: modules.names().clone(),
    };
    set::store(out, &manifest, &kernel.vmlinux, &initrd)
}
