//! The module list: a TOML file that names what the guest loads, and when.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::{Error, Result};

/// Modules by name; what they depend on comes by itself.
///
/// ```
/// let list: guest_image::build::list::ModuleList =
///     guest_image::build::list::ModuleList::parse("boot = [\"virtio_pci\"]", "modules.toml".as_ref())?;
/// assert_eq!(list.boot, ["virtio_pci"]);
/// # Ok::<(), guest_image::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModuleList {
    /// Loaded before the agent serves: the way to the host, and nothing else.
    pub boot: Vec<String>,
    /// Loaded at the same time as those, of which they need none.
    pub beside: Vec<String>,
    /// Loaded while the agent serves already.
    pub background: Vec<String>,
    /// Loaded when something asks for them.
    pub on_demand: Vec<String>,
    /// Those of the above that a kernel may lack.
    pub optional: BTreeSet<String>,
}

impl ModuleList {
    /// Reads a list from its file.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::InvalidInput`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::parse(&text, path)
    }

    /// Reads a list; `path` is only for the error's text.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for what is not TOML, a key that is not known, a module that is
    /// named twice, or an optional one that is not named elsewhere.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let invalid = |reason: String| Error::input(path, "a module list", reason);
        let list: Self = toml::from_str(text).map_err(|e| invalid(e.to_string()))?;
        let mut seen = BTreeSet::new();
        for name in list
            .boot
            .iter()
            .chain(&list.beside)
            .chain(&list.background)
            .chain(&list.on_demand)
        {
            if *name != normal_name(name) {
                return Err(invalid(format!(
                    "module {name:?} is spelt {:?}",
                    normal_name(name)
                )));
            }
            if !seen.insert(name) {
                return Err(invalid(format!("module {name} is named twice")));
            }
        }
        if let Some(name) = list.optional.iter().find(|name| !seen.contains(name)) {
            return Err(invalid(format!(
                "module {name} is optional, but not wanted"
            )));
        }
        Ok(list)
    }
}

/// A module's name as the kernel has it: files may be spelt with hyphens.
pub fn normal_name(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ModuleList> {
        ModuleList::parse(text, Path::new("modules.toml"))
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("boots = []", "unknown field `boots`"),
            (
                "boot = [\"a\"]\non_demand = [\"a\"]",
                "module a is named twice",
            ),
            ("boot = [\"virtio-rng\"]", "is spelt \"virtio_rng\""),
            ("optional = [\"a\"]", "module a is optional, but not wanted"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
