//! The step that changes what a running process sees. It is alone, as the launcher step is: only a
//! process with one thread may enter another mount namespace.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, mkdirat, open, unlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, UnmountFlags, open_tree, unmount};

use super::descriptors::take_socket;
use super::tree::{ALWAYS, attach, copy_mount, open_in};
use super::{AtStep, StepResult};
use crate::error::Step;
use crate::mount_tree::{TreeEntry, TreeNode};
use crate::sys::make_writable;
use crate::tree_change::{Addition, ChangeOrder};
use crate::wire::receive;

/// The step that changes a mount tree: what `internal change-tree` does, before anything else and
/// with no other thread. Standard input is the socket to whoever asked, who is told of every
/// error.
///
/// # Errors
///
/// The system's error of what failed.
pub fn internal_change_tree() -> io::Result<()> {
    let socket = take_socket()?;
    let changed = receive::<ChangeOrder>(&socket)
        .at(Step::Receive, || "the order".to_owned())
        .and_then(|(order, descriptors)| run(&order, descriptors));
    if let Err(failure) = &changed {
        // Nobody is there to be told when this fails.
        let _ = (&socket).write_all(&serde_json::to_vec(failure)?);
    }
    changed.map_err(|failure| io::Error::from_raw_os_error(failure.errno))
}

fn run(order: &ChangeOrder, descriptors: Vec<OwnedFd>) -> StepResult<()> {
    let unknown = || "the descriptors".to_owned();
    let (pidfd, sources) = descriptors
        .split_first()
        .ok_or(Errno::BADF)
        .at(Step::Receive, unknown)?;
    if sources.len() != order.add.len() {
        return Err(Errno::BADF).at(Step::Receive, unknown);
    }
    // While this is still the caller's mount namespace: only there may its mounts be copied.
    let copies = order
        .add
        .iter()
        .zip(sources)
        .map(|(addition, source)| copy(addition, source.as_fd()))
        .collect::<StepResult<Vec<_>>>()?;
    setns(pidfd, CloneFlags::CLONE_NEWNS).at(Step::EnterNamespace, || "its pidfd".to_owned())?;
    let tree = Tree::open()?;
    for place in &order.remove {
        tree.remove(place)?;
    }
    for (addition, copy) in order.add.iter().zip(&copies) {
        tree.add(&addition.at, copy.as_fd())?;
    }
    Ok(())
}

fn copy(addition: &Addition, source: BorrowedFd<'_>) -> StepResult<OwnedFd> {
    let mut attributes = ALWAYS;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, addition.read_only);
    let propagation = addition.propagation;
    copy_mount(source, "", true, attributes, propagation, &addition.at)
}

/// The tree that the process sees.
struct Tree {
    root: OwnedFd,
    /// A copy of the tree's own tmpfs that can be written. The process's own cannot, at no moment.
    writable: OwnedFd,
    device: u64,
}

impl Tree {
    fn open() -> StepResult<Self> {
        let at = || "its root".to_owned();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open("/", flags, Mode::empty()).at(Step::MountTree, at)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let writable = open_tree(&root, "", flags).at(Step::MountTree, at)?;
        make_writable(writable.as_fd()).at(Step::MountTree, at)?;
        let device = fstat(&root).at(Step::MountTree, at)?.st_dev;
        Ok(Self {
            root,
            writable,
            device,
        })
    }

    fn add(&self, place: &str, mount: BorrowedFd<'_>) -> StepResult<()> {
        let made = || -> Result<(), Errno> {
            let (directories, name) = split(place)?;
            let parent = self.own_directory(self.writable.as_fd(), &directories)?;
            let is_directory =
                FileType::from_raw_mode(fstat(mount)?.st_mode) == FileType::Directory;
            if is_directory {
                mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
            } else {
                open_in(
                    parent.as_fd(),
                    name,
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
                )?;
            }
            let attached = self
                .own_directory(self.root.as_fd(), &directories)
                .and_then(|parent| open_in(parent.as_fd(), name, OFlags::PATH))
                .and_then(|place| attach(mount, place.as_fd(), ""));
            if attached.is_err() {
                // The first error is the one to tell.
                let _ = take_out(parent.as_fd(), name);
            }
            attached
        };
        made().at(Step::MountTree, || place.to_owned())
    }

    fn remove(&self, place: &str) -> StepResult<()> {
        let removed = || -> Result<(), Errno> {
            let (directories, name) = split(place)?;
            let parent = self.own_directory(self.root.as_fd(), &directories)?;
            rustix::process::fchdir(&parent)?;
            loop {
                match unmount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                    // What the host mounted over the source of a slave lies over the slave too.
                    Ok(()) => {}
                    // Not there, not mounted yet, or not any more.
                    Err(Errno::NOENT | Errno::INVAL) => break,
                    Err(errno) => return Err(errno),
                }
            }
            let parent = self.own_directory(self.writable.as_fd(), &directories)?;
            take_out(parent.as_fd(), name)
        };
        removed().at(Step::Unmount, || place.to_owned())
    }

    /// A directory of the tree's own tmpfs: nothing is made or removed in what is bound.
    fn own_directory(&self, from: BorrowedFd<'_>, names: &[&str]) -> Result<OwnedFd, Errno> {
        let mut directory = open_in(from, ".", OFlags::PATH | OFlags::DIRECTORY)?;
        for name in names {
            directory = open_in(directory.as_fd(), name, OFlags::PATH | OFlags::DIRECTORY)?;
        }
        match fstat(&directory)?.st_dev == self.device {
            true => Ok(directory),
            false => Err(Errno::XDEV),
        }
    }
}

/// The directories on the way to a place, and its name.
fn split(place: &str) -> Result<(Vec<&str>, &str), Errno> {
    let entry = TreeEntry {
        at: place.to_owned(),
        node: TreeNode::Dir { mode: 0 },
    };
    entry.check().map_err(|_| Errno::INVAL)?;
    let mut names: Vec<&str> = place.split('/').filter(|name| !name.is_empty()).collect();
    let name = names.pop().ok_or(Errno::INVAL)?;
    Ok((names, name))
}

fn take_out(parent: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let flags = match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => AtFlags::REMOVEDIR,
        Err(errno) => return Err(errno),
    };
    unlinkat(parent, name, flags)
}
