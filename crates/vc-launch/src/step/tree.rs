//! Builds a mount tree and makes it the root.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, RawMode, ResolveFlags, fchmod, fstat, mkdirat, openat2, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::{AtStep, StepResult};
use crate::error::Step;
use crate::mount_tree::{MountTree, Propagation, TreeEntry, TreeNode};
use crate::sys::set_mount_attributes;

/// No mount of a tree gives rights by set-id bits or device files.
pub(super) const ALWAYS: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Copies of the mounts that the tree binds, not attached anywhere yet.
pub(super) struct Sources {
    binds: BTreeMap<usize, OwnedFd>,
}

impl Sources {
    /// Copies them while this is still the caller's mount namespace, since only there the
    /// descriptors' mounts may be copied.
    pub(super) fn take(root: &MountTree, descriptors: &BTreeMap<u32, OwnedFd>) -> StepResult<Self> {
        let mut binds = BTreeMap::new();
        for (index, entry) in root.entries.iter().enumerate() {
            let at = || entry.at.clone();
            let copy = match &entry.node {
                TreeNode::Bind {
                    source,
                    recursive,
                    read_only,
                    propagation,
                } => {
                    let source = descriptors
                        .get(&source.0)
                        .ok_or(Errno::BADF)
                        .at(Step::MountSources, at)?;
                    let attributes = if *read_only {
                        ALWAYS | MountAttrFlags::MOUNT_ATTR_RDONLY
                    } else {
                        ALWAYS
                    };
                    let source = source.as_fd();
                    copy_mount(source, "", *recursive, attributes, *propagation, &entry.at)?
                }
                TreeNode::OwnDescriptors => {
                    let attributes = ALWAYS | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                    let (from, private) = ("/proc/self/fd", Propagation::Private);
                    copy_mount(CWD, from, false, attributes, private, &entry.at)?
                }
                _ => continue,
            };
            binds.insert(index, copy);
        }
        Ok(Self { binds })
    }
}

/// A copy of a mount that is not attached anywhere, with these attributes.
pub(super) fn copy_mount(
    from: BorrowedFd<'_>,
    path: &str,
    recursive: bool,
    attributes: MountAttrFlags,
    propagation: Propagation,
    at: &str,
) -> StepResult<OwnedFd> {
    let at = || at.to_owned();
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.is_empty());
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    let copy = open_tree(from, path, flags).at(Step::MountSources, at)?;
    let attributes = u64::from(attributes.bits());
    set_mount_attributes(copy.as_fd(), attributes, recursive, propagation)
        .at(Step::MountSources, at)?;
    Ok(copy)
}

/// Builds the tree over the old root, makes it the root, and lets the old one go.
pub(super) fn build_and_enter(root: &MountTree, sources: &Sources) -> StepResult<()> {
    let at = || "its root".to_owned();
    let tmpfs = new_tmpfs(root.bytes, 0o755).at(Step::MountTree, at)?;
    // A mount must be attached before anything can be mounted in it.
    attach(tmpfs.as_fd(), CWD, "/").at(Step::MountTree, at)?;
    let mut builder = Builder::new(tmpfs)?;
    for (index, entry) in root.entries.iter().enumerate() {
        let at = || entry.at.clone();
        builder
            .make(entry, sources.binds.get(&index))
            .at(Step::MountTree, at)?;
    }
    if root.read_only {
        let attributes = ALWAYS | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let attributes = u64::from(attributes.bits());
        let private = Propagation::Private;
        set_mount_attributes(builder.root.as_fd(), attributes, false, private)
            .at(Step::MountTree, at)?;
    }
    fchdir(&builder.root).at(Step::MountTree, at)?;
    // With both names the same, the old root lies over the new one and is taken off at once.
    pivot_root(".", ".").at(Step::MountTree, at)?;
    unmount(".", UnmountFlags::DETACH).at(Step::MountTree, at)?;
    chdir("/").at(Step::MountTree, at)
}

fn new_tmpfs(bytes: u64, mode: RawMode) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "size", bytes.to_string())?;
    fsconfig_set_string(context.as_fd(), "mode", format!("{mode:o}"))?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, ALWAYS)
}

pub(super) fn attach(mount: BorrowedFd<'_>, at: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    flags.set(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH, path.is_empty());
    move_mount(mount, "", at, path, flags)
}

struct Builder {
    root: OwnedFd,
    /// The file systems in which places may be made, by their device.
    own: Vec<u64>,
}

impl Builder {
    fn new(root: OwnedFd) -> StepResult<Self> {
        let device = fstat(&root)
            .at(Step::MountTree, || "its root".to_owned())?
            .st_dev;
        Ok(Self {
            root,
            own: vec![device],
        })
    }

    fn make(&mut self, entry: &TreeEntry, bind: Option<&OwnedFd>) -> Result<(), Errno> {
        let names: Vec<&str> = entry.names().collect();
        let (name, parents) = names.split_last().ok_or(Errno::INVAL)?;
        let mut parent = self.root.try_clone().map_err(|_| Errno::MFILE)?;
        for name in parents {
            parent = self.directory(parent.as_fd(), name)?;
        }
        match (&entry.node, bind) {
            (TreeNode::Dir { mode }, _) => {
                let made = self.directory(parent.as_fd(), name)?;
                self.set_mode(made.as_fd(), *mode)
            }
            (TreeNode::File { content, mode }, _) => {
                let file = self.file(parent.as_fd(), name)?;
                if rustix::io::write(&file, content.as_bytes())? != content.len() {
                    return Err(Errno::NOSPC);
                }
                fchmod(&file, Mode::from_raw_mode(*mode))
            }
            (TreeNode::Symlink { target }, _) => {
                self.check_own(parent.as_fd())?;
                symlinkat(target.as_str(), &parent, *name)
            }
            (TreeNode::Tmpfs { bytes, mode }, _) => {
                let place = self.directory(parent.as_fd(), name)?;
                let tmpfs = new_tmpfs(*bytes, *mode)?;
                attach(tmpfs.as_fd(), place.as_fd(), "")?;
                self.own.push(fstat(&tmpfs)?.st_dev);
                Ok(())
            }
            (TreeNode::Bind { .. } | TreeNode::OwnDescriptors, Some(bind)) => {
                let place = self.place_for(bind.as_fd(), parent.as_fd(), name)?;
                attach(bind.as_fd(), place.as_fd(), "")
            }
            (TreeNode::Bind { .. } | TreeNode::OwnDescriptors, None) => Err(Errno::BADF),
        }
    }

    /// A place of the kind that `bind` is.
    fn place_for(
        &self,
        bind: BorrowedFd<'_>,
        parent: BorrowedFd<'_>,
        name: &str,
    ) -> Result<OwnedFd, Errno> {
        if FileType::from_raw_mode(fstat(bind)?.st_mode) == FileType::Directory {
            return self.directory(parent, name);
        }
        match open_in(parent, name, OFlags::PATH) {
            Err(Errno::NOENT) => self.file(parent, name),
            other => other,
        }
    }

    /// The directory `name`, made when it is not there.
    fn directory(&self, parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match open_in(parent, name, flags) {
            Err(Errno::NOENT) => {
                self.check_own(parent)?;
                mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
                let made = open_in(parent, name, flags)?;
                self.set_mode(made.as_fd(), 0o755)?;
                Ok(made)
            }
            other => other,
        }
    }

    fn file(&self, parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
        self.check_own(parent)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        open_in(parent, name, flags)
    }

    /// Whatever the creation mask is. `fchmod` takes no `O_PATH` descriptor.
    fn set_mode(&self, directory: BorrowedFd<'_>, mode: RawMode) -> Result<(), Errno> {
        self.check_own(directory)?;
        let directory = open_in(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        fchmod(directory, Mode::from_raw_mode(mode))
    }

    /// Nothing is made or changed in what is bound into the tree.
    fn check_own(&self, directory: BorrowedFd<'_>) -> Result<(), Errno> {
        let device = fstat(directory)?.st_dev;
        if self.own.contains(&device) {
            Ok(())
        } else {
            Err(Errno::XDEV)
        }
    }
}

/// Opens `name` below `parent`, which is one name and never a link.
pub(super) fn open_in(parent: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mode = if flags.contains(OFlags::CREATE) {
        Mode::from_raw_mode(0o600)
    } else {
        Mode::empty()
    };
    openat2(
        parent,
        name,
        flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        mode,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}
