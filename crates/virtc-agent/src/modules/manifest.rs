//! The list of the initrd's kernel modules, made by the image tool.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// Which modules there are and in which order they load.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Manifest {
    /// Needed before the agent can be reached.
    #[serde(default)]
    pub(crate) boot: Vec<PathBuf>,
    /// Needed by every container, and independent of `boot`.
    #[serde(default)]
    pub(crate) beside: Vec<PathBuf>,
    /// Needed by most containers: loaded while the agent serves already.
    #[serde(default)]
    pub(crate) background: Vec<PathBuf>,
    /// Loaded when a storage asks for one by name, with what it depends on before it.
    #[serde(default)]
    pub(crate) on_demand: BTreeMap<String, Vec<PathBuf>>,
}

impl Manifest {
    /// Reads a manifest.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).map_err(|source| Error::Json {
            attempt: "read the list of modules".into(),
            source,
        })
    }

    /// What has to be loaded, in order, for the module `name`; `None` when the list does not know
    /// it, which means that the kernel has it built in or does not have it at all.
    pub(crate) fn needed_for(&self, name: &str) -> Option<Vec<PathBuf>> {
        if let Some(paths) = self.on_demand.get(name) {
            return Some(paths.clone());
        }
        for list in [&self.boot, &self.beside, &self.background] {
            if let Some(position) = list.iter().position(|path| module_name(path) == name) {
                return Some(list[..=position].to_vec());
            }
        }
        None
    }

    /// The background modules without those that boot has loaded.
    pub(crate) fn background_only(&self) -> Vec<PathBuf> {
        let boot: HashSet<&PathBuf> = self.boot.iter().collect();
        self.background
            .iter()
            .filter(|path| !boot.contains(path))
            .cloned()
            .collect()
    }
}

/// A module's name as the kernel has it: `virtio-rng.ko` is `virtio_rng`.
pub(crate) fn module_name(path: &Path) -> String {
    path.file_stem()
        .map(|stem| stem.to_string_lossy().replace('-', "_"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = br#"{
        "boot": ["/lib/modules/virtio_ring.ko", "/lib/modules/virtio.ko"],
        "background": ["/lib/modules/virtio.ko", "/lib/modules/fuse.ko", "/lib/modules/virtiofs.ko",
                       "/lib/modules/virtio-rng.ko"],
        "on_demand": {"erofs": ["/lib/modules/crc.ko", "/lib/modules/erofs.ko"]}
    }"#;

    fn names(paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|path| module_name(path)).collect()
    }

    #[test]
    fn a_module_comes_with_what_stands_before_it() {
        let manifest = Manifest::parse(TEXT).unwrap();
        assert_eq!(
            names(&manifest.needed_for("erofs").unwrap()),
            ["crc", "erofs"]
        );
        assert_eq!(
            names(&manifest.needed_for("virtiofs").unwrap()),
            ["virtio", "fuse", "virtiofs"]
        );
        assert_eq!(manifest.needed_for("ext4"), None);
    }

    #[test]
    fn nothing_is_loaded_twice_and_names_are_the_kernels() {
        let manifest = Manifest::parse(TEXT).unwrap();
        assert_eq!(
            names(&manifest.background_only()),
            ["fuse", "virtiofs", "virtio_rng"]
        );
    }

    #[test]
    fn an_empty_list_is_a_kernel_with_everything_built_in() {
        assert_eq!(Manifest::parse(b"{}").unwrap(), Manifest::default());
        assert!(Manifest::parse(b"3").is_err());
    }
}
