//! Binds files and directories of the guest into a root, with the container library's understanding
//! of their options.
//!
//! The library's own way reads the list of all mounts and makes a procfs for each bind, which is a
//! tenth of all that an emulated guest does to complete a container that waits.

use std::mem::size_of;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use libcontainer::rootfs::utils::parse_mount;
use libcontainer::syscall::linux::{self, MountAttr};
use libcontainer::syscall::syscall::create_syscall;
use oci_spec::runtime::Mount;
use rustix::fs::{
    CWD, FileType, Mode, OFlags, RawMode, ResolveFlags, fstat, mkdirat, open, openat, openat2,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::{Attempt as _, Error, Result};

/// What is made for a bind that has no place yet.
const DIRECTORY_MODE: RawMode = 0o755;
const FILE_MODE: RawMode = 0o644;

/// The bits of mount(2) that a bind can have, and what mount_setattr(2) has for them. `relatime` is
/// none of the others.
const ATTRIBUTES: [(u64, u64); 8] = [
    (libc::MS_RDONLY, linux::MOUNT_ATTR_RDONLY),
    (libc::MS_NOSUID, linux::MOUNT_ATTR_NOSUID),
    (libc::MS_NODEV, linux::MOUNT_ATTR_NODEV),
    (libc::MS_NOEXEC, linux::MOUNT_ATTR_NOEXEC),
    (libc::MS_NOATIME, linux::MOUNT_ATTR_NOATIME),
    (libc::MS_NODIRATIME, linux::MOUNT_ATTR_NODIRATIME),
    (libc::MS_RELATIME, linux::MOUNT_ATTR_RELATIME),
    (libc::MS_STRICTATIME, linux::MOUNT_ATTR_STRICTATIME),
];

/// How access times are kept: one of these, or what the source has.
const ACCESS_TIMES: u64 = libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;

/// Binds the source of `mount` at its destination in `root`, which is made where it is not there. No
/// link leads out of the root.
pub(super) fn bind_into(root: &OwnedFd, mount: &Mount) -> Result<()> {
    let destination = mount.destination();
    let attempt = || format!("bind at {}", destination.display());
    let source = mount.source().as_ref().ok_or_else(|| Error::Invalid {
        field: "mount source",
        value: destination.display().to_string(),
        reason: "is missing",
    })?;
    let tree =
        copy(source, is_recursive(mount)).attempt(|| format!("find {}", source.display()))?;
    set_attributes(&tree, mount)?;
    let is_directory = is_directory(&tree).attempt(attempt)?;
    let place = place(root, destination, is_directory).attempt(attempt)?;
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &place, "", both).attempt(attempt)
}

fn is_recursive(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    options.iter().any(|option| option == "rbind")
}

/// A copy of a mount, mounted nowhere.
fn copy(source: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(CWD, source, flags)
}

fn is_directory(file: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Directory)
}

fn set_attributes(tree: &OwnedFd, mount: &Mount) -> Result<()> {
    let attempt = || format!("set the options of {}", mount.destination().display());
    let options = parse_mount(mount).map_err(|source| Error::Root {
        attempt: attempt(),
        source: source.into(),
    })?;
    let own = attributes(options.flags.bits());
    let all = options.rec_attr;
    for (attributes, recursive) in [(own, 0), (all, linux::AT_RECURSIVE)] {
        let Some(attributes) = attributes else {
            continue;
        };
        let flags = linux::AT_EMPTY_PATH | recursive;
        let (place, size) = (Path::new(""), size_of::<MountAttr>());
        create_syscall()
            .mount_setattr(tree.as_fd(), place, flags, &attributes, size)
            .map_err(|source| Error::Root {
                attempt: attempt(),
                source: source.into(),
            })?;
    }
    Ok(())
}

/// What flags of mount(2) are for mount_setattr(2); nothing where they change nothing.
fn attributes(flags: u64) -> Option<MountAttr> {
    let known = ATTRIBUTES.iter().filter(|(flag, _)| flags & flag != 0);
    let set = known.fold(0, |set, (_, attribute)| set | attribute);
    let clear = match flags & ACCESS_TIMES {
        0 => 0,
        _ => linux::MOUNT_ATTR__ATIME,
    };
    (set != 0 || clear != 0).then_some(MountAttr {
        attr_set: set,
        attr_clr: clear,
        propagation: 0,
        userns_fd: 0,
    })
}

/// The destination of a bind, made where it is not there.
fn place(root: &OwnedFd, path: &Path, is_directory: bool) -> rustix::io::Result<OwnedFd> {
    match resolve(root, path) {
        Err(Errno::NOENT) => {}
        found => return found,
    }
    let mut directory = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
    let mut so_far = PathBuf::new();
    let mut names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let last = names.next_back().ok_or(Errno::NOENT)?;
    for name in names {
        so_far.push(name);
        directory = match resolve(root, &so_far) {
            Err(Errno::NOENT) => make_directory(&directory, name)?,
            found => found?,
        };
    }
    match is_directory {
        true => make_directory(&directory, last),
        false => make_file(&directory, last),
    }
}

fn resolve(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
}

fn make_directory(parent: &OwnedFd, name: &std::ffi::OsStr) -> rustix::io::Result<OwnedFd> {
    mkdirat(parent, name, Mode::from_raw_mode(DIRECTORY_MODE))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn make_file(parent: &OwnedFd, name: &std::ffi::OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::from_raw_mode(FILE_MODE))
}

/// Opens a root to be bound into.
pub(super) fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).attempt(|| format!("open root {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn flags_become_attributes() {
        assert!(attributes(0).is_none());
        let read_only = attributes(libc::MS_RDONLY | libc::MS_NODEV).unwrap();
        let expected = linux::MOUNT_ATTR_RDONLY | linux::MOUNT_ATTR_NODEV;
        assert_eq!((read_only.attr_set, read_only.attr_clr), (expected, 0));
        // Access times are one field: what it had has to be cleared.
        for (flag, attribute) in [
            (libc::MS_RELATIME, linux::MOUNT_ATTR_RELATIME),
            (libc::MS_NOATIME, linux::MOUNT_ATTR_NOATIME),
        ] {
            let times = attributes(flag).unwrap();
            assert_eq!(
                (times.attr_set, times.attr_clr),
                (attribute, linux::MOUNT_ATTR__ATIME)
            );
        }
    }

    fn inode(place: &OwnedFd) -> u64 {
        fstat(place).unwrap().st_ino
    }

    #[test]
    fn a_place_is_found_or_made_and_never_outside_of_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let root = open_root(path).unwrap();
        fs::create_dir(path.join("there")).unwrap();
        symlink("/there", path.join("link")).unwrap();
        symlink("../../../../etc", path.join("out")).unwrap();

        let made = place(&root, Path::new("/a/b/file"), false).unwrap();
        assert_eq!(
            inode(&made),
            fs::metadata(path.join("a/b/file")).unwrap().ino()
        );
        let found = place(&root, Path::new("/a/b/file"), false).unwrap();
        assert_eq!(inode(&found), inode(&made));
        let made = place(&root, Path::new("/link/d"), true).unwrap();
        assert_eq!(
            inode(&made),
            fs::metadata(path.join("there/d")).unwrap().ino()
        );
        // It leads to /etc of the root, which is not there: a link is no directory.
        assert!(place(&root, Path::new("/out/x"), false).is_err());
        fs::create_dir(path.join("etc")).unwrap();
        place(&root, Path::new("/out/x"), false).unwrap();
        assert!(path.join("etc/x").exists());
        // A file is in the way.
        assert!(place(&root, Path::new("/a/b/file/x"), true).is_err());
    }
}
