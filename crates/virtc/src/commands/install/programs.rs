//! The programs, where a service of the system finds them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::error::{FAILED, Failure};

const PROGRAMS: [&str; 2] = ["virtc", "containerd-shim-virtc-v2"];

/// Where systemd's services look for programs.
const SERVICE_PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// A link that is to be, or that is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) path: PathBuf,
    pub(super) target: PathBuf,
}

impl Link {
    /// Makes it, in the place of another link.
    ///
    /// # Errors
    ///
    /// Names the link.
    pub(super) fn make(&self) -> Result<(), Failure> {
        let done = || {
            if let Some(directory) = self.path.parent() {
                fs::create_dir_all(directory)?;
            }
            if self.path.is_symlink() {
                fs::remove_file(&self.path)?;
            }
            symlink(&self.target, &self.path)
        };
        done().map_err(|error: io::Error| self.failed("make", &error))
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// Names the link.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        fs::remove_file(&self.path).map_err(|error| self.failed("remove", &error))
    }

    fn failed(&self, attempt: &str, error: &io::Error) -> Failure {
        let message = format!("cannot {attempt} the link {}", self.path.display());
        Failure::new(FAILED, message).note(error.to_string())
    }
}

/// The programs of one installation.
#[derive(Debug)]
pub(super) struct Programs {
    /// Where they are.
    directory: PathBuf,
}

impl Programs {
    /// Those that this program was installed with.
    ///
    /// # Errors
    ///
    /// When the shim does not lie beside this program.
    pub(super) fn of_this() -> Result<Self, Failure> {
        let own = std::env::current_exe().map_err(|error| Failure::plain(FAILED, &error))?;
        let directory = own.parent().unwrap_or(Path::new("/")).to_owned();
        for name in PROGRAMS {
            if !directory.join(name).is_file() {
                let message = format!("{name} does not lie in {}", directory.display());
                return Err(Failure::new(FAILED, message).hint("install it: make install"));
            }
        }
        Ok(Self { directory })
    }

    /// The links that are missing in `bin_dir`: none where a service finds the programs as they are.
    ///
    /// # Errors
    ///
    /// When other programs have their names there.
    pub(super) fn missing(&self, bin_dir: &Path) -> Result<Vec<Link>, Failure> {
        let found = SERVICE_PATH
            .iter()
            .any(|path| same(Path::new(path), &self.directory));
        if found || same(bin_dir, &self.directory) {
            return Ok(Vec::new());
        }
        let mut missing = Vec::new();
        for link in self.links(bin_dir) {
            if same(&link.path, &link.target) {
                continue;
            }
            let other = fs::symlink_metadata(&link.path);
            if other.is_ok_and(|found| !found.is_symlink()) {
                let message = format!(
                    "{} is another program than {}",
                    link.path.display(),
                    link.target.display()
                );
                return Err(Failure::new(FAILED, message)
                    .hint("install with the virtc that lies there, or remove both"));
            }
            missing.push(link);
        }
        Ok(missing)
    }

    /// The links in `bin_dir` that lead to these programs.
    pub(super) fn linked(&self, bin_dir: &Path) -> Vec<Link> {
        let links = self.links(bin_dir).into_iter();
        links
            .filter(|link| link.path.is_symlink() && same(&link.path, &link.target))
            .collect()
    }

    fn links(&self, bin_dir: &Path) -> Vec<Link> {
        let link = |name| Link {
            path: bin_dir.join(name),
            target: self.directory.join(name),
        };
        PROGRAMS.map(link).into()
    }
}

/// Whether both are there and the same.
fn same(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_nobody_would_find_get_links_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (own, bin) = (dir.path().join("opt"), dir.path().join("bin"));
        fs::create_dir(&own).unwrap();
        for name in PROGRAMS {
            fs::write(own.join(name), name).unwrap();
        }
        let programs = Programs {
            directory: own.clone(),
        };
        let missing = programs.missing(&bin).unwrap();
        assert_eq!(missing.len(), 2);
        for link in &missing {
            link.make().unwrap();
        }
        assert_eq!(programs.missing(&bin).unwrap(), []);
        assert_eq!(programs.linked(&bin), missing);
        // An older link is replaced, and is none of ours.
        fs::remove_file(bin.join("virtc")).unwrap();
        symlink("/nowhere/virtc", bin.join("virtc")).unwrap();
        assert_eq!(programs.linked(&bin), missing[1..]);
        let again = programs.missing(&bin).unwrap();
        assert_eq!(again, missing[..1]);
        again[0].make().unwrap();
        // A program is not.
        fs::remove_file(bin.join("virtc")).unwrap();
        fs::write(bin.join("virtc"), "other").unwrap();
        let said = programs.missing(&bin).unwrap_err().line();
        assert!(said.contains("bin/virtc is another program"), "{said}");
        assert_eq!(programs.missing(&own).unwrap(), []);
        assert_eq!(programs.linked(&own), []);
    }
}
