//! Finding a kernel and its modules in a distribution's package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Error, Result};

/// An unpacked kernel package; gone when it is dropped.
#[derive(Debug)]
pub struct Package {
    /// The kernel in it.
    pub kernel: PathBuf,
    /// Its module directory.
    pub modules: PathBuf,
    _dir: TempDir,
}

impl Package {
    /// Unpacks a Debian package that brings one kernel.
    ///
    /// # Errors
    /// [`Error::Program`] when `dpkg-deb` is missing or fails, [`Error::InvalidInput`] when there
    /// is not exactly one kernel in the package, [`Error::Io`].
    pub fn unpack(file: &Path) -> Result<Self> {
        let dir = tempfile::tempdir().map_err(Error::io("make", &std::env::temp_dir()))?;
        run_dpkg_deb(file, dir.path())?;
        // With a merged /usr the modules are below it.
        let modules = [Path::new("lib/modules"), Path::new("usr/lib/modules")]
            .map(|place| dir.path().join(place))
            .into_iter()
            .find(|place| place.is_dir())
            .ok_or_else(|| Error::input(file, "a kernel package", "it has no modules"))?;
        let modules = only_entry(&modules, "", file)?;
        let boot = dir.path().join("boot");
        let kernel = if boot.is_dir() {
            only_entry(&boot, "vmlinuz", file)?
        } else {
            only_entry(&modules, "vmlinuz", file)?
        };
        Ok(Self {
            kernel,
            modules,
            _dir: dir,
        })
    }
}

fn run_dpkg_deb(file: &Path, dir: &Path) -> Result<()> {
    let failed = |reason| Error::Program {
        program: "dpkg-deb",
        path: file.to_path_buf(),
        reason,
    };
    let output = Command::new("dpkg-deb")
        .arg("--extract")
        .args([file, dir])
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{}: {}", output.status, text.trim())))
}

/// The one entry of a directory whose name begins so.
fn only_entry(dir: &Path, prefix: &str, package: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        (None, _) => Err(Error::input(
            package,
            "a kernel package",
            "it has no kernel",
        )),
        _ => Err(Error::input(
            package,
            "a kernel package",
            "it has more than one kernel",
        )),
    }
}
