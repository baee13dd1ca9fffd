//! Opening a set of assets.
//!
//! Reading sixty megabytes at every start only to find them unchanged would cost more than
//! starting QEMU. So a set may have a *stamp*: beside the manifest, the size, inode and time of
//! change of each file at the moment its digest was last found right. [`GuestAssets::open`] trusts
//! a stamp that still fits, and computes the digests where there is none or where it does not fit,
//! as after a copy. It protects from accidents, not from somebody who may write there: that one
//! could replace the manifest too.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::is_short;
use crate::manifest::{Asset, INITRD, MANIFEST, MANIFEST_BYTES_MAX, VMLINUX};
use crate::{Digest, Error, Manifest, Result};

/// The stamp's file name in a set.
pub const STAMP: &str = "stamp.json";

/// A file as it was when its digest was right.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    size: u64,
    inode: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl FileStamp {
    fn of(file: &Metadata) -> Self {
        Self {
            size: file.size(),
            inode: file.ino(),
            modified_s: file.mtime(),
            modified_ns: file.mtime_nsec(),
        }
    }
}

/// `stamp.json`. The manifest's digest ties it to the one manifest that it was made for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    manifest: Digest,
    vmlinux: FileStamp,
    initrd: FileStamp,
}

/// A set of assets that matches its manifest.
///
/// ```no_run
/// let assets = guest_image::GuestAssets::open("/usr/local/share/virtcontainers/guest/current".as_ref())?;
/// println!("{} boots {}", assets.vmlinux().display(), assets.manifest().kernel_release);
/// # Ok::<(), guest_image::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct GuestAssets {
    dir: PathBuf,
    manifest: Manifest,
    manifest_digest: Digest,
}

impl GuestAssets {
    /// Opens the set in a directory, or in the one that a link such as `current` names; the set
    /// stays the same one when the link is changed later.
    ///
    /// # Errors
    /// [`Error::NoAssets`] when there is no manifest, [`Error::InvalidManifest`] when it cannot be
    /// understood or belongs to another directory, [`Error::Mismatch`] when a file is not what the
    /// manifest says, [`Error::Io`] when one cannot be read.
    pub fn open(dir: &Path) -> Result<Self> {
        let assets = Self::open_unchecked(dir)?;
        if Some(assets.current_stamp()?) != assets.stored_stamp() {
            assets.verify()?;
        }
        Ok(assets)
    }

    fn open_unchecked(dir: &Path) -> Result<Self> {
        let none = |source| Error::NoAssets {
            dir: dir.to_path_buf(),
            source,
        };
        let dir = dir.canonicalize().map_err(none)?;
        let path = dir.join(MANIFEST);
        let bytes = read_bounded(&path, MANIFEST_BYTES_MAX).map_err(none)?;
        let manifest = Manifest::parse(&bytes, &path)?;
        let manifest_digest = Digest::of(&bytes);
        // A directory that somebody named otherwise says nothing about its manifest.
        let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if is_short(name) && name != manifest_digest.short() {
            let reason = format!("it belongs into the directory {}", manifest_digest.short());
            return Err(Error::InvalidManifest { path, reason });
        }
        Ok(Self {
            dir,
            manifest,
            manifest_digest,
        })
    }

    /// Computes the digests of the files and compares them with the manifest.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for the first file that differs, [`Error::Io`] when one cannot be read.
    pub fn verify(&self) -> Result<()> {
        for (path, asset) in self.files() {
            let found = Digest::of_file(&path)?;
            if found != asset.sha256 {
                return Err(Error::Mismatch {
                    path,
                    what: "digest",
                    found: found.to_string(),
                    expected: asset.sha256.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Verifies the set and writes its stamp, so that the next [`open`](Self::open) is cheap.
    ///
    /// # Errors
    /// As for [`open`](Self::open) and [`verify`](Self::verify), and [`Error::Io`] when the stamp
    /// cannot be written.
    pub fn stamp(dir: &Path) -> Result<Self> {
        let assets = Self::open_unchecked(dir)?;
        let before = assets.current_stamp()?;
        assets.verify()?;
        // A file that changed while it was read has no digest that the stamp could speak of.
        if before == assets.current_stamp()? {
            let path = assets.dir.join(STAMP);
            // Plain data with string keys: serde_json cannot fail on it.
            let text = serde_json::to_vec(&before).unwrap_or_default();
            fs::write(&path, text).map_err(Error::io("write", &path))?;
        }
        Ok(assets)
    }

    /// The directory, links resolved.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The set's name: the beginning of the manifest's digest.
    pub fn id(&self) -> String {
        self.manifest_digest.short()
    }

    /// The kernel.
    pub fn vmlinux(&self) -> PathBuf {
        self.dir.join(VMLINUX)
    }

    /// The initrd.
    pub fn initrd(&self) -> PathBuf {
        self.dir.join(INITRD)
    }

    fn files(&self) -> [(PathBuf, &Asset); 2] {
        [
            (self.vmlinux(), &self.manifest.vmlinux),
            (self.initrd(), &self.manifest.initrd),
        ]
    }

    /// What a stamp written now would hold; the sizes are compared with the manifest on the way.
    fn current_stamp(&self) -> Result<Stamp> {
        let [vmlinux, initrd] = self.files().map(|(path, asset)| {
            let found = fs::metadata(&path).map_err(Error::io("read", &path))?;
            if found.size() != asset.size {
                return Err(Error::Mismatch {
                    path,
                    what: "size",
                    found: found.size().to_string(),
                    expected: asset.size.to_string(),
                });
            }
            Ok(FileStamp::of(&found))
        });
        let manifest = self.manifest_digest.clone();
        Ok(Stamp {
            manifest,
            vmlinux: vmlinux?,
            initrd: initrd?,
        })
    }

    /// The stamp as stored, or nothing where it is missing or cannot be understood.
    fn stored_stamp(&self) -> Option<Stamp> {
        let bytes = read_bounded(&self.dir.join(STAMP), MANIFEST_BYTES_MAX).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Reads a file of at most `limit` bytes and one more, by which a longer one is noticed.
fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;
    use crate::manifest::{FORMAT, Modules};

    fn set() -> (TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let manifest = Manifest {
            format: FORMAT,
            kernel_release: "6.1.0".into(),
            types_by_class: false,
            vmlinux: Asset::of(b"kernel"),
            initrd: Asset::of(b"initrd"),
            agent: Asset::of(b"agent"),
            archive: None,
            modules: Modules::default(),
        };
        let dir = root.path().join(manifest.id());
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(VMLINUX), "kernel").unwrap();
        fs::write(dir.join(INITRD), "initrd").unwrap();
        fs::write(dir.join(MANIFEST), manifest.to_json()).unwrap();
        (root, dir)
    }

    #[test]
    fn a_link_is_resolved_once() {
        let (root, dir) = set();
        let current = root.path().join("current");
        symlink(dir.file_name().unwrap(), &current).unwrap();
        let assets = GuestAssets::open(&current).unwrap();
        assert_eq!(assets.dir(), dir.canonicalize().unwrap());
        assert_eq!(assets.id(), assets.manifest().id());
    }

    #[test]
    fn nothing_there_is_said_as_such() {
        let root = tempfile::tempdir().unwrap();
        let error = GuestAssets::open(&root.path().join("current")).unwrap_err();
        assert!(matches!(error, Error::NoAssets { .. }), "{error}");
    }

    #[test]
    fn another_size_and_another_content_are_refused() {
        let (_root, dir) = set();
        fs::write(dir.join(INITRD), "initrd+").unwrap();
        let error = GuestAssets::open(&dir).unwrap_err();
        assert!(
            matches!(error, Error::Mismatch { what: "size", .. }),
            "{error}"
        );
        fs::write(dir.join(INITRD), "INITRD").unwrap();
        let error = GuestAssets::open(&dir).unwrap_err();
        assert!(
            matches!(error, Error::Mismatch { what: "digest", .. }),
            "{error}"
        );
    }

    #[test]
    fn a_manifest_of_another_set_is_refused() {
        let (_root, dir) = set();
        let path = dir.join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap().replace("6.1.0", "6.1.1");
        fs::write(&path, text).unwrap();
        let error = GuestAssets::open(&dir).unwrap_err();
        assert!(matches!(error, Error::InvalidManifest { .. }), "{error}");
    }

    #[test]
    fn a_fitting_stamp_is_trusted_and_any_other_is_not() {
        let (_root, dir) = set();
        GuestAssets::stamp(&dir).unwrap();
        // Same inode, size and time: what the stamp cannot see is seen by `verify` alone.
        let initrd = dir.join(INITRD);
        let modified = fs::metadata(&initrd).unwrap().modified().unwrap();
        fs::write(&initrd, "INITRD").unwrap();
        File::options()
            .write(true)
            .open(&initrd)
            .unwrap()
            .set_modified(modified)
            .unwrap();
        let assets = GuestAssets::open(&dir).unwrap();
        assert!(matches!(assets.verify(), Err(Error::Mismatch { .. })));
        // A copy has another inode.
        fs::rename(&initrd, dir.join("old")).unwrap();
        fs::copy(dir.join("old"), &initrd).unwrap();
        assert!(matches!(
            GuestAssets::open(&dir),
            Err(Error::Mismatch { .. })
        ));
    }

    #[test]
    fn a_broken_stamp_means_no_stamp() {
        let (_root, dir) = set();
        fs::write(dir.join(STAMP), "{").unwrap();
        GuestAssets::open(&dir).unwrap();
    }
}
