//! A file of settings: read, kept as a copy, and replaced at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{FAILED, Failure};

/// Bytes of settings, many more than anybody writes.
const BYTES_MAX: u64 = 4 << 20;

/// What the copy is called after the file. It must not match the patterns of imports, `*.toml`.
const COPY_SUFFIX: &str = ".before-virtc";

/// What the new file is called until it is complete.
const NEW_SUFFIX: &str = ".virtc-new";

/// Mode of a file that was not there.
const NEW_MODE: u32 = 0o644;

/// A file of settings, or the place for one.
#[derive(Debug)]
pub(super) struct SettingsFile {
    /// Not a link.
    path: PathBuf,
    /// Nothing where there is no file.
    text: Option<String>,
}

impl SettingsFile {
    /// Reads the file that `path` leads to.
    ///
    /// # Errors
    ///
    /// What is no file of text, links that lead to nothing, and files that cannot be read.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let found = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self {
                    path: path.to_owned(),
                    text: None,
                });
            }
            found => found.map_err(|error| failed("look at", path, &error))?,
        };
        let target = match found.is_symlink() {
            true => fs::canonicalize(path)
                .map_err(|error| failed("find what a link leads to,", path, &error))?,
            false => path.to_owned(),
        };
        let metadata = fs::metadata(&target).map_err(|error| failed("look at", &target, &error))?;
        if !metadata.is_file() || metadata.len() > BYTES_MAX {
            let message = format!("{} is no file of settings", target.display());
            return Err(Failure::new(FAILED, message));
        }
        let text = fs::read_to_string(&target).map_err(|error| failed("read", &target, &error))?;
        Ok(Self {
            path: target,
            text: Some(text),
        })
    }

    /// Where it is, behind all links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Where the copy of it is kept.
    pub(super) fn copy_path(&self) -> PathBuf {
        with_suffix(&self.path, COPY_SUFFIX)
    }

    /// Refuses what somebody protects from being written.
    ///
    /// # Errors
    ///
    /// Names the file.
    pub(super) fn check_writable(&self) -> Result<(), Failure> {
        if self.text.is_none() {
            return Ok(());
        }
        let protected = fs::metadata(&self.path).is_ok_and(|found| found.permissions().readonly());
        let opened = OpenOptions::new().append(true).open(&self.path);
        let reason = match (protected, opened) {
            (false, Ok(_)) => return Ok(()),
            (true, _) => "nobody may write it".to_owned(),
            (false, Err(error)) => error.to_string(),
        };
        let message = format!("{} is read-only", self.path.display());
        Err(Failure::new(FAILED, message)
            .note(reason)
            .hint("where something else makes the file, add the handler there: see --dry-run"))
    }

    /// Keeps a copy, unless there is one. Says whether it made one.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(super) fn keep_copy(&self) -> Result<bool, Failure> {
        let copy = self.copy_path();
        let Some(text) = &self.text else {
            return Ok(false);
        };
        if copy.exists() {
            return Ok(false);
        }
        self.write(&copy, text)
            .map_err(|error| failed("write", &copy, &error))?;
        Ok(true)
    }

    /// Removes the copy if it is what the file is now. Says where one is left.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub(super) fn drop_copy(&self, now: &str) -> Result<Option<PathBuf>, Failure> {
        let copy = self.copy_path();
        match fs::read_to_string(&copy) {
            Ok(kept) if kept == now => {
                fs::remove_file(&copy).map_err(|error| failed("remove", &copy, &error))?;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(_) | Err(_) => Ok(Some(copy)),
        }
    }

    /// Puts a text in the place of the file's: whoever reads it has the one or the other.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the file is as it was.
    pub(super) fn replace(&self, text: &str) -> Result<(), Failure> {
        self.write(&self.path, text)
            .map_err(|error| failed("write", &self.path, &error))
    }

    /// Removes the file.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        fs::remove_file(&self.path).map_err(|error| failed("remove", &self.path, &error))
    }

    /// Writes `target` with the owner and mode of this file.
    fn write(&self, target: &Path, text: &str) -> io::Result<()> {
        let directory = target.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let like = fs::metadata(&self.path).ok();
        let new = with_suffix(target, NEW_SUFFIX);
        let mode = like.as_ref().map_or(NEW_MODE, |like| like.mode() & 0o7777);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&new)
            .and_then(|mut file| {
                if let Some(like) = &like {
                    std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()))?;
                }
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&new, target));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written?;
        File::open(directory)?.sync_all()
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn failed(attempt: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(FAILED, format!("cannot {attempt} {}", path.display())).note(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_replaced_behind_its_links_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("config.toml"));
        fs::write(&real, "before").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real", &link).unwrap();
        let file = SettingsFile::open(&link).unwrap();
        file.check_writable().unwrap();
        assert!(file.keep_copy().unwrap());
        file.replace("after").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "after");
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o7777, 0o640);
        let copy = dir.path().join("real.before-virtc");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "before");
        // The first copy is the one that counts.
        let file = SettingsFile::open(&link).unwrap();
        assert!(!file.keep_copy().unwrap());
        assert_eq!(file.drop_copy("after").unwrap(), Some(copy.clone()));
        assert_eq!(file.drop_copy("before").unwrap(), None);
        assert!(!copy.exists());
        let names = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 2, "nothing else is left");
    }

    #[test]
    fn what_cannot_be_settings_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("nowhere", at("dangling")).unwrap();
        fs::write(at("binary"), [0xff, 0xfe]).unwrap();
        for name in ["dangling", "binary"] {
            let said = SettingsFile::open(&at(name)).unwrap_err().line();
            assert!(said.contains(at(name).to_str().unwrap()), "{said}");
        }
        assert!(SettingsFile::open(dir.path()).is_err());
        fs::write(at("protected"), "").unwrap();
        fs::set_permissions(at("protected"), fs::Permissions::from_mode(0o444)).unwrap();
        let file = SettingsFile::open(&at("protected")).unwrap();
        assert!(
            file.check_writable()
                .unwrap_err()
                .line()
                .contains("read-only")
        );
    }

    #[test]
    fn a_missing_file_is_made_with_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/containerd/config.toml");
        let file = SettingsFile::open(&path).unwrap();
        assert_eq!(file.text(), None);
        file.check_writable().unwrap();
        assert!(!file.keep_copy().unwrap());
        file.replace("version = 2\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "version = 2\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, NEW_MODE);
    }
}
