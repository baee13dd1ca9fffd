//! Which name of an archive becomes which name below the destination.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the names of an archive become names below a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// What every name begins with, and loses. A name that does not is refused.
    pub root: Option<String>,
    /// What takes its place; nothing where the archive's root is the directory itself.
    pub target: Option<PathBuf>,
    /// Whether the root has to be a directory.
    pub directory_only: bool,
}

impl Names {
    /// The name below the directory, which is empty for the directory itself.
    pub(crate) fn place(&self, name: &Path) -> Result<PathBuf> {
        let refuse = |reason| Error::Entry {
            name: name.to_owned(),
            reason,
        };
        let mut place = self.target.clone().unwrap_or_default();
        let mut root = self.root.as_deref().map(OsStr::new);
        for component in name.components() {
            match component {
                Component::Normal(part) => match root.take() {
                    Some(root) if root != part => {
                        return Err(refuse("is not in the tree that was asked for"));
                    }
                    Some(_) => {}
                    None => place.push(part),
                },
                Component::CurDir => {}
                Component::ParentDir => return Err(refuse("leads upwards")),
                Component::RootDir | Component::Prefix(_) => {
                    return Err(refuse("is an absolute name"));
                }
            }
        }
        match root {
            Some(_) => Err(refuse("is not in the tree that was asked for")),
            None => Ok(place),
        }
    }

    /// Whether this place is the root's.
    pub(crate) fn is_root(&self, place: &Path) -> bool {
        place == self.target.as_deref().unwrap_or(Path::new(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(root: Option<&str>, target: Option<&str>, name: &str) -> Option<PathBuf> {
        let names = Names {
            root: root.map(str::to_owned),
            target: target.map(PathBuf::from),
            directory_only: false,
        };
        names.place(Path::new(name)).ok()
    }

    #[test]
    fn the_root_gets_its_new_name() {
        let at = |name| place(Some("etc"), Some("copy"), name);
        assert_eq!(at("etc"), Some("copy".into()));
        assert_eq!(at("./etc/a/b"), Some("copy/a/b".into()));
        assert_eq!(place(None, None, "./a"), Some("a".into()));
        assert_eq!(place(None, None, "."), Some("".into()));
        assert_eq!(place(None, Some("new"), "."), Some("new".into()));
    }

    #[test]
    fn no_name_leads_out() {
        for name in [
            "etc/../x",
            "/etc",
            "..",
            "other",
            ".bashrc",
            ".",
            "",
            "etcetera/x",
        ] {
            assert_eq!(place(Some("etc"), Some("etc"), name), None, "{name}");
        }
        for name in ["../x", "a/../../x", "/x"] {
            assert_eq!(place(None, None, name), None, "{name}");
        }
    }
}
