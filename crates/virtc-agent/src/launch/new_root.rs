//! Gives a ready-made container its root.
//!
//! A container that waits has a root of its own with nothing but the file systems that every
//! container has: `/proc`, `/dev` and `/sys` with what is masked in them. The maker joins them with
//! the real root and its further mounts, in a mount namespace of its own, and puts the whole into the
//! container's namespace. `pivot_root` there moves the waiting process, too: the kernel changes the
//! root of every process that has the old one.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind_recursive,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::bind::{bind_into, open_root};
use super::report::log_chdir;
use crate::error::{Attempt as _, Result};

/// What the root of a container that waits has, and the next one gets.
pub(crate) const KEPT: [&str; 3] = ["proc", "dev", "sys"];

/// Where in its first root the next one is put.
pub(crate) const PLACE: &str = "next";

/// The root of a container, and what else its first process finds when it goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NewRoot {
    /// The process that waits.
    pub(crate) pid: i32,
    /// The root, in the agent's namespace. [`KEPT`] are directories in it, or are not there.
    pub(crate) root: PathBuf,
    /// What is mounted in it, in this order, after what every container has.
    pub(crate) mounts: Vec<Mount>,
    /// The host name; the sandbox's where there is none.
    pub(crate) hostname: Option<String>,
    /// The working directory, which has to be one.
    pub(crate) cwd: PathBuf,
}

impl NewRoot {
    /// Gives it. This process is in the container's namespaces then.
    pub(super) fn give(&self) -> Result<()> {
        let mounts = self.namespace("mnt")?;
        let names = self.namespace("uts")?;
        let sandbox = rustix::system::uname();
        let hostname = match &self.hostname {
            Some(name) => name.as_bytes(),
            None => sandbox.nodename().to_bytes(),
        };
        let tree = self.join(&mounts)?;
        enter(&mounts, LinkNameSpaceType::Mount)?;
        put(&tree)?;
        enter(&names, LinkNameSpaceType::HostNameAndNISDomainName)?;
        rustix::system::sethostname(hostname).attempt(|| "set the host name".into())?;
        enter_directory(&self.cwd)
            .inspect_err(|error| log_chdir(*error))
            .attempt(|| format!("enter {}", self.cwd.display()))
    }

    fn namespace(&self, kind: &str) -> Result<OwnedFd> {
        open_namespace(&format!("/proc/{}/ns/{kind}", self.pid))
    }

    /// The root with all that is mounted in it, as a tree that is mounted nowhere.
    fn join(&self, theirs: &OwnedFd) -> Result<OwnedFd> {
        let attempt = || format!("bind root {}", self.root.display());
        crate::sys::unshare_mount_namespace().attempt(|| "make a mount namespace".into())?;
        let own = open_namespace("/proc/self/ns/mnt")?;
        let all = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
        mount_change("/", all).attempt(attempt)?;
        mount_bind_recursive(&self.root, &self.root).attempt(attempt)?;

        enter(theirs, LinkNameSpaceType::Mount)?;
        let kept = KEPT.map(|name| copy_tree(&Path::new("/").join(name)));
        enter(&own, LinkNameSpaceType::Mount)?;
        for (name, tree) in KEPT.iter().zip(kept) {
            attach(&tree?, &plain_directory(&self.root, name)?)?;
        }
        let root = open_root(&self.root)?;
        for mount in &self.mounts {
            bind_into(&root, mount)?;
        }
        copy_tree(&self.root)
    }
}

/// Enters a working directory. It has to be below the root: a descriptor that is open, by its path in
/// procfs, could lead to another one.
pub(super) fn enter_directory(path: &Path) -> rustix::io::Result<()> {
    rustix::process::chdir(path)?;
    let directory = rustix::process::getcwd(Vec::new())?;
    match directory.as_bytes().starts_with(b"/") {
        true => Ok(()),
        false => Err(Errno::NOENT),
    }
}

fn open_namespace(path: &str) -> Result<OwnedFd> {
    open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).attempt(|| format!("open {path}"))
}

fn enter(namespace: &OwnedFd, kind: LinkNameSpaceType) -> Result<()> {
    use std::os::fd::AsFd as _;
    move_into_link_name_space(namespace.as_fd(), Some(kind))
        .attempt(|| format!("enter a namespace of {kind:?}"))
}

/// A copy of what is mounted at a path and below, mounted nowhere.
fn copy_tree(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).attempt(|| format!("copy the mounts of {}", path.display()))
}

fn attach(tree: &OwnedFd, place: &Path) -> Result<()> {
    move_mount(
        tree,
        "",
        CWD,
        place,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .attempt(|| format!("mount at {}", place.display()))
}

/// A directory of a root, made when it is not there. Whoever calls has seen that it is no link.
fn plain_directory(root: &Path, name: &str) -> Result<PathBuf> {
    let path = root.join(name);
    let attempt = || format!("create {}", path.display());
    match fs::create_dir(&path) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::EXIST) => {
            return Err(error).attempt(attempt);
        }
        _ => {}
    }
    match fs::symlink_metadata(&path).attempt(attempt)?.is_dir() {
        true => Ok(path),
        false => Err(Errno::NOTDIR).attempt(attempt),
    }
}

/// Makes the tree the root of the mount namespace that this process has entered, and of all
/// processes that had the old one.
fn put(tree: &OwnedFd) -> Result<()> {
    let attempt = || "change the root".to_owned();
    let place = Path::new("/").join(PLACE);
    attach(tree, &place)?;
    rustix::process::chdir(&place).attempt(attempt)?;
    rustix::process::pivot_root(".", ".").attempt(attempt)?;
    // What is on top of the new root now is the old one.
    unmount(".", UnmountFlags::DETACH).attempt(attempt)?;
    rustix::process::chdir("/").attempt(attempt)
}
