//! `manifest.json`: what a set of assets consists of and what it was made from.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Result};

/// The version of the manifest's form that is written and read.
pub const FORMAT: u32 = 1;

/// Bytes of a manifest. A set with a hundred modules needs some ten thousand.
pub const MANIFEST_BYTES_MAX: u64 = 256 << 10;

/// Bytes of one asset. A distribution's kernel has some fifty million.
pub const ASSET_BYTES_MAX: u64 = 1 << 30;

/// The kernel's file name in a set.
pub const VMLINUX: &str = "vmlinux";

/// The initrd's file name in a set.
pub const INITRD: &str = "initrd";

/// The manifest's file name in a set.
pub const MANIFEST: &str = "manifest.json";

/// Size and digest of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asset {
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of its content.
    pub sha256: Digest,
}

impl Asset {
    /// What describes these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            size: bytes.len() as u64,
            sha256: Digest::of(bytes),
        }
    }
}

/// When the agent loads which modules; names in load order, dependencies included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modules {
    /// Before the agent serves.
    pub boot: Vec<String>,
    /// Meanwhile; they need none of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
    /// While it serves already.
    pub background: Vec<String>,
    /// When something asks for the module that is the key.
    pub on_demand: BTreeMap<String, Vec<String>>,
    /// Wanted, but part of the kernel itself.
    pub builtin: Vec<String>,
}

/// The modules that are loaded when the kernel itself asks for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedModules {
    /// The archive, one file inside the initrd.
    pub file: Asset,
    /// Their names.
    pub modules: Vec<String>,
}

/// What `manifest.json` holds.
///
/// ```
/// use guest_image::{Manifest, manifest::{Asset, FORMAT}};
///
/// let manifest = Manifest {
///     format: FORMAT,
///     kernel_release: "6.1.0-1-cloud-amd64".into(),
///     types_by_class: false,
///     vmlinux: Asset::of(b"kernel"),
///     initrd: Asset::of(b"initrd"),
///     agent: Asset::of(b"agent"),
///     archive: None,
///     modules: Default::default(),
/// };
/// let text = manifest.to_json();
/// assert_eq!(Manifest::parse(text.as_bytes(), "manifest.json".as_ref()).unwrap(), manifest);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this form.
    pub format: u32,
    /// What `uname -r` prints in the guest.
    pub kernel_release: String,
    /// Whether the kernel can know a device's type by its class
    /// (`virtio_pci_modern_dev.type_by_class`, a parameter of our own kernel).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub types_by_class: bool,
    /// The unpacked kernel.
    pub vmlinux: Asset,
    /// The initrd.
    pub initrd: Asset,
    /// The agent inside the initrd.
    pub agent: Asset,
    /// The archive of further modules inside the initrd, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchivedModules>,
    /// The modules inside the initrd.
    pub modules: Modules,
}

/// Only the version, so that a newer form is refused by its number and not by its first new key. A key that may
/// be missing makes no newer form: assets without it are those of before.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Manifest {
    /// Reads a manifest; `path` is only for the error's text.
    ///
    /// # Errors
    /// [`Error::InvalidManifest`] when it is too long, not JSON, of another format, has a key that
    /// is not known or a value that cannot be.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let invalid = |reason: String| Error::InvalidManifest {
            path: path.to_path_buf(),
            reason,
        };
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(invalid(format!(
                "it has more than {MANIFEST_BYTES_MAX} bytes"
            )));
        }
        let FormatOnly { format } =
            serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        if format != FORMAT {
            return Err(invalid(format!(
                "its format is {format}, this program reads {FORMAT}"
            )));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        manifest.check().map_err(invalid)?;
        Ok(manifest)
    }

    /// The text of `manifest.json`. The same manifest always gives the same text.
    pub fn to_json(&self) -> String {
        // Plain data with string keys: serde_json cannot fail on it.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The name of this set's directory.
    pub fn id(&self) -> String {
        Digest::of(self.to_json().as_bytes()).short()
    }

    fn check(&self) -> Result<(), String> {
        for (name, asset) in [
            (VMLINUX, &self.vmlinux),
            (INITRD, &self.initrd),
            ("agent", &self.agent),
        ] {
            if asset.size == 0 || asset.size > ASSET_BYTES_MAX {
                return Err(format!("the size of {name} is {}", asset.size));
            }
        }
        check_word("kernel release", &self.kernel_release)?;
        let archived = self.archive.iter().flat_map(|archive| &archive.modules);
        let m = &self.modules;
        let listed = m
            .boot
            .iter()
            .chain(&m.beside)
            .chain(&m.background)
            .chain(&m.builtin)
            .chain(archived);
        let on_demand = m
            .on_demand
            .iter()
            .flat_map(|(key, list)| [key].into_iter().chain(list));
        listed
            .chain(on_demand)
            .try_for_each(|name| check_word("module", name))
    }
}

/// These words end up in file names, log lines and messages.
fn check_word(what: &str, word: &str) -> Result<(), String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._+~-".contains(&b);
    if word.is_empty() || word.len() > 128 || !word.bytes().all(fits) || word.starts_with('.') {
        return Err(format!(
            "{what} {word:?} has a character or a length that it cannot have"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Manifest {
        Manifest {
            format: FORMAT,
            kernel_release: "6.1.0".into(),
            types_by_class: false,
            vmlinux: Asset::of(b"k"),
            initrd: Asset::of(b"i"),
            agent: Asset::of(b"a"),
            archive: None,
            modules: Modules::default(),
        }
    }

    fn parse(text: &str) -> Result<Manifest> {
        Manifest::parse(text.as_bytes(), Path::new(MANIFEST))
    }

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let text = sample()
            .to_json()
            .replace("\"format\": 1", "\"format\": 2, \"new\": true");
        let error = parse(&text).unwrap_err().to_string();
        assert!(
            error.contains("its format is 2, this program reads 1"),
            "{error}"
        );
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused() {
        let good = sample().to_json();
        for (from, to) in [
            ("\"format\": 1", "\"format\": 1, \"extra\": 0"),
            ("\"size\": 1", "\"size\": 0"),
            ("\"size\": 1", "\"size\": -1"),
            ("\"size\": 1", "\"size\": 1073741825"),
            ("6.1.0", "../6.1.0"),
            ("6.1.0", "6.1.0/x"),
            ("\"boot\": []", "\"boot\": [\"a b\"]"),
            ("\"sha256\": \"", "\"sha256\": \"0"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from} is not in the sample");
            assert!(
                matches!(parse(&bad), Err(Error::InvalidManifest { .. })),
                "{to}"
            );
        }
    }

    prop_compose! {
        fn word()(word in "[a-z0-9][a-z0-9_.+-]{0,20}") -> String { word }
    }

    prop_compose! {
        fn asset()(size in 1..=ASSET_BYTES_MAX, seed in any::<[u8; 4]>()) -> Asset {
            Asset { size, sha256: Digest::of(&seed) }
        }
    }

    prop_compose! {
        fn archive()(file in asset(), modules in prop::collection::vec(word(), 0..6)) -> ArchivedModules {
            ArchivedModules { file, modules }
        }
    }

    prop_compose! {
        fn modules()(
            boot in prop::collection::vec(word(), 0..6),
            beside in prop::collection::vec(word(), 0..6),
            background in prop::collection::vec(word(), 0..6),
            on_demand in prop::collection::btree_map(word(), prop::collection::vec(word(), 0..4), 0..4),
            builtin in prop::collection::vec(word(), 0..4),
        ) -> Modules {
            Modules { boot, beside, background, on_demand, builtin }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            kernel_release in word(), types_by_class in any::<bool>(), vmlinux in asset(), initrd in asset(), agent in asset(),
            modules in modules(), archive in prop::option::of(archive()),
        ) {
            let m = Manifest {
                format: FORMAT, kernel_release, types_by_class, vmlinux, initrd, agent, archive, modules,
            };
            let text = m.to_json();
            let read = parse(&text).unwrap();
            prop_assert_eq!(&read, &m);
            prop_assert_eq!(read.to_json(), text);
        }

        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Manifest::parse(&bytes, Path::new(MANIFEST));
        }

        #[test]
        fn any_one_changed_byte_gives_an_answer(at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = sample().to_json().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Manifest::parse(&bytes, Path::new(MANIFEST));
        }
    }
}
