//! Where a copy goes, by the rules of `cp -a` and `docker cp`.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::error::{Attempt as _, Error, Result};
use crate::names::Names;

/// What is coming.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Incoming {
    /// A file or directory that is called so in its archive.
    Named(String),
    /// What is in a directory: in its archive, that is `.`.
    Contents,
    /// An archive of somebody else, with any names.
    Archive,
}

/// A directory that is opened, and what the names of the archive become below it.
#[derive(Debug)]
pub struct Destination {
    /// It exists. Nothing is written outside of it.
    pub directory: OwnedFd,
    /// The names below it.
    pub names: Names,
}

impl Destination {
    /// Decides what `path` means for what is coming: a directory that exists gets it inside, and
    /// what does not exist is its new name, in a directory that does. Links on the way to `path`
    /// and at its end are followed here, and nowhere later.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the directory does not exist or cannot be opened,
    /// [`Error::Unsuitable`] when the path cannot be that of a copy.
    pub fn open(path: &Path, incoming: &Incoming) -> Result<Self> {
        let unsuitable = |reason| Error::Unsuitable {
            path: path.to_owned(),
            reason,
        };
        let (root, own_target) = match incoming {
            Incoming::Named(name) => (Some(name.clone()), Some(PathBuf::from(name))),
            Incoming::Contents | Incoming::Archive => (None, None),
        };
        let must_be_directory = says_directory(path);
        match fs::canonicalize(path) {
            Ok(found) if found.is_dir() => Ok(Self {
                directory: open_directory(&found, path)?,
                names: Names {
                    root,
                    target: own_target,
                    directory_only: *incoming == Incoming::Contents,
                },
            }),
            Ok(_) if must_be_directory || !matches!(incoming, Incoming::Named(_)) => {
                Err(unsuitable("is not a directory"))
            }
            Ok(found) => {
                let (Some(parent), Some(name)) = (found.parent(), found.file_name()) else {
                    return Err(unsuitable("has no name"));
                };
                Ok(Self {
                    directory: open_directory(parent, path)?,
                    names: Names {
                        root,
                        target: Some(name.into()),
                        directory_only: false,
                    },
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if *incoming == Incoming::Archive {
                    return Err(error).attempt("copy to", path);
                }
                let Some(name) = path.file_name() else {
                    return Err(error).attempt("copy to", path);
                };
                let parent = path
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty())
                    .unwrap_or(Path::new("."));
                if fs::symlink_metadata(parent.join(name)).is_ok() {
                    return Err(unsuitable("is a link that leads nowhere"));
                }
                Ok(Self {
                    directory: open_directory(parent, parent)?,
                    names: Names {
                        root,
                        target: Some(name.into()),
                        directory_only: must_be_directory || *incoming == Incoming::Contents,
                    },
                })
            }
            Err(error) => Err(error).attempt("copy to", path),
        }
    }
}

/// Whether the words of a path say that it is a directory.
fn says_directory(path: &Path) -> bool {
    let text = path.as_os_str().as_bytes();
    text.ends_with(b"/") || text.ends_with(b"/.") || text == b"."
}

fn open_directory(path: &Path, named: &Path) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    File::options()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .map(OwnedFd::from)
        .attempt("open the directory", named)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn named() -> Incoming {
        Incoming::Named("src".into())
    }

    fn target(path: &Path, incoming: &Incoming) -> Result<(Option<PathBuf>, bool)> {
        let names = Destination::open(path, incoming)?.names;
        Ok((names.target, names.directory_only))
    }

    #[test]
    fn a_directory_gets_it_inside_and_what_is_missing_is_its_name() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink("dir", at("link")).unwrap();
        let some = |name: &str| Some(PathBuf::from(name));
        assert_eq!(target(&at("dir"), &named()).unwrap(), (some("src"), false));
        assert_eq!(target(&at("link"), &named()).unwrap(), (some("src"), false));
        assert_eq!(
            target(&at("file"), &named()).unwrap(),
            (some("file"), false)
        );
        assert_eq!(target(&at("new"), &named()).unwrap(), (some("new"), false));
        assert_eq!(target(&at("new/"), &named()).unwrap(), (some("new"), true));
        assert_eq!(
            target(&at("dir"), &Incoming::Contents).unwrap(),
            (None, true)
        );
        assert_eq!(
            target(&at("new"), &Incoming::Contents).unwrap(),
            (some("new"), true)
        );
        assert_eq!(
            target(&at("dir"), &Incoming::Archive).unwrap(),
            (None, false)
        );
    }

    #[test]
    fn what_cannot_be_a_destination_is_named() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("file"), "").unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        for (name, incoming) in [
            ("file/", named()),
            ("file", Incoming::Contents),
            ("file", Incoming::Archive),
            ("new", Incoming::Archive),
            ("no/new", named()),
            ("no/..", named()),
            ("dangling", named()),
        ] {
            let error = Destination::open(&at(name), &incoming).unwrap_err();
            let word = name.split('/').next().unwrap();
            assert!(error.chain().contains(word), "{name}: {error}");
        }
    }
}
