//! Roots that are disks: what the guest can mount by itself is given to it as it is, and is nowhere on the
//! host.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use containerd_shim_protos::types::mount::Mount;
use virtcontainers::{Access, Root, RootDisk, RootSource};

/// The file systems that the guest's kernel has.
const FILE_SYSTEMS: [&str; 2] = ["ext4", "erofs"];

/// One that nobody can write.
const READ_ONLY: &str = "erofs";

/// Options that are about the host's mount, or that say what the root's access says.
const OF_THE_HOST: [&str; 7] = [
    "loop", "ro", "rw", "defaults", "async", "private", "rprivate",
];

/// What a snapshotter describes as one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskRoot {
    disk: RootDisk,
    read_only: bool,
}

impl DiskRoot {
    /// The disk that the mounts of a root are; nothing where they are something else, or what the guest
    /// cannot mount.
    pub(crate) fn of(mounts: &[Mount]) -> Option<Self> {
        let [one] = mounts else {
            return None;
        };
        let is_known = FILE_SYSTEMS.contains(&one.type_.as_str());
        let kind = std::fs::metadata(&one.source).ok()?.file_type();
        // Further disks are named by options.
        let is_alone = !one
            .options
            .iter()
            .any(|option| option.starts_with("device="));
        if !is_known || !is_alone || !(kind.is_block_device() || kind.is_file()) {
            return None;
        }
        let has = |name: &str| one.options.iter().any(|option| option == name);
        let options = one.options.iter();
        let options = options.filter(|option| !OF_THE_HOST.contains(&option.as_str()));
        Some(Self {
            disk: RootDisk {
                path: Path::new(&one.source).to_owned(),
                file_system: one.type_.clone(),
                options: options.cloned().collect(),
            },
            read_only: one.type_ == READ_ONLY || has("ro"),
        })
    }

    /// What a container has as its root instead of the directory of its bundle.
    pub(crate) fn root(&self, of_bundle: &Root) -> Root {
        let access = match (of_bundle.access, self.read_only) {
            (Access::ReadWrite, false) => Access::ReadWrite,
            (Access::Private, false) => Access::Private,
            _ => Access::ReadOnly,
        };
        Root {
            source: RootSource::Disk(self.disk.clone()),
            access,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &Path, options: &[&str]) -> Mount {
        Mount {
            type_: kind.to_owned(),
            source: source.display().to_string(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn a_disk_is_known_by_its_file_system_and_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, "").unwrap();
        let of =
            |kind, source: &Path, options: &[&str]| DiskRoot::of(&[mount(kind, source, options)]);
        let found = of("ext4", &image, &["loop", "rw", "discard"]).unwrap();
        assert_eq!(found.disk.options, ["discard"]);
        assert!(!found.read_only);
        assert!(of("ext4", &image, &["ro"]).unwrap().read_only);
        assert!(of("erofs", &image, &["loop"]).unwrap().read_only);
        for (kind, source, options) in [
            ("overlay", image.as_path(), &[][..]),
            ("ext4", dir.path(), &[]),
            ("ext4", Path::new("/nonexistent"), &[]),
            ("erofs", &image, &["device=/other"]),
        ] {
            assert_eq!(of(kind, source, options), None, "{kind} {source:?}");
        }
        let two = [mount("ext4", &image, &[]), mount("ext4", &image, &[])];
        assert_eq!(DiskRoot::of(&two), None);
    }

    #[test]
    fn what_is_read_only_on_either_side_is_so() {
        let disk = |read_only| DiskRoot {
            disk: RootDisk {
                path: "/dev/loop0".into(),
                file_system: "ext4".into(),
                options: Vec::new(),
            },
            read_only,
        };
        let of_bundle = |access| Root {
            source: RootSource::HostSystem,
            access,
        };
        for (bundle, read_only, access) in [
            (Access::ReadWrite, false, Access::ReadWrite),
            (Access::ReadWrite, true, Access::ReadOnly),
            (Access::ReadOnly, false, Access::ReadOnly),
        ] {
            assert_eq!(disk(read_only).root(&of_bundle(bundle)).access, access);
        }
    }
}
