//! Putting a set where readers find it: complete, or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::manifest::{INITRD, MANIFEST, VMLINUX};
use crate::{Error, GuestAssets, Manifest, Result};

/// The link that names the newest set.
pub const CURRENT: &str = "current";

/// Writes a set below `out`, and makes `current` name it; returns the set's directory.
///
/// The files are written into a directory of another name, which is then renamed, so that a
/// reader never sees half a set. A set that is there already and is right is left as it is.
///
/// # Errors
/// [`Error::Io`]; [`Error::Mismatch`] when a set of this name is there and is damaged.
pub fn store(out: &Path, manifest: &Manifest, vmlinux: &[u8], initrd: &[u8]) -> Result<PathBuf> {
    fs::create_dir_all(out).map_err(Error::io("make", out))?;
    let dir = out.join(manifest.id());
    if dir.exists() {
        GuestAssets::open(&dir)?.verify()?;
    } else {
        let new = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(out)
            .map_err(Error::io("make", out))?;
        write_synced(&new.path().join(VMLINUX), vmlinux)?;
        write_synced(&new.path().join(INITRD), initrd)?;
        write_synced(&new.path().join(MANIFEST), manifest.to_json().as_bytes())?;
        match fs::rename(new.path(), &dir) {
            // Another build was faster, with the same bytes.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            result => {
                result.map_err(Error::io("make", &dir))?;
                let _gone = new.keep();
            }
        }
    }
    GuestAssets::stamp(&dir)?;
    point_current_at(out, &manifest.id())?;
    Ok(dir)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).map_err(Error::io("write", path))?;
    file.write_all(bytes).map_err(Error::io("write", path))?;
    file.set_permissions(Permissions::from_mode(0o444))
        .map_err(Error::io("write", path))?;
    file.sync_all().map_err(Error::io("write", path))
}

/// A link cannot be changed, only replaced by another one.
fn point_current_at(out: &Path, id: &str) -> Result<()> {
    let current = out.join(CURRENT);
    if fs::read_link(&current).is_ok_and(|target| target == Path::new(id)) {
        return Ok(());
    }
    let new = tempfile::Builder::new()
        .prefix(".current-")
        .make_in(out, |path| symlink(id, path))
        .map_err(Error::io("write", &current))?;
    new.into_temp_path()
        .persist(&current)
        .map_err(|e| Error::io("write", &current)(e.error))
}
