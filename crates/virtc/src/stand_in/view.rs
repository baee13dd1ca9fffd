//! What others find through the pid of the process that stands for a container: the container's
//! files and one process, and nothing of the host.
//!
//! Engines copy files into a running container, and read its processes, in the mount namespace of
//! that pid, with the rights of root. So the first thread of the process, which its pid names, has
//! a namespace of its own, whose root is the container's. All work is done by another thread, which
//! keeps the host's, as keeping a machine takes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};
use virtcontainers::{Access, ContainerConfig, RootSource};

use super::Outcome;
use crate::error::{FAILED, Failure};

/// The stack of the thread that does the work: what the first thread of a process usually has.
const STACK_BYTES: usize = 8 << 20;

/// What tools read in a `/proc` beside the directories of processes. It tells nothing of them.
const PROC_FILES: [&str; 2] = ["stat", "uptime"];

const PRIVATE: MountPropagationFlags =
    MountPropagationFlags::PRIVATE.union(MountPropagationFlags::REC);

/// A file or directory of the host at a place of the container.
#[derive(Debug)]
struct Shown {
    source: PathBuf,
    destination: PathBuf,
    read_only: bool,
}

/// The files of a container.
#[derive(Debug)]
struct View {
    root: PathBuf,
    read_only: bool,
    volumes: Vec<Shown>,
}

/// Lets the thread that does the work change what the first one shows.
#[derive(Debug)]
pub(super) struct Viewer {
    views: Sender<View>,
    shown: Receiver<io::Result<()>>,
}

impl Viewer {
    /// From now on the container's files are what others find.
    ///
    /// # Errors
    ///
    /// With the root, when its mounts cannot be made.
    pub(super) fn show(&self, container: &ContainerConfig) -> Result<(), Failure> {
        let Some(view) = View::of(container) else {
            return Ok(());
        };
        let root = view.root.display().to_string();
        let gone = || Err(io::ErrorKind::BrokenPipe.into());
        let shown = match self.views.send(view) {
            Ok(()) => self.shown.recv().unwrap_or_else(|_| gone()),
            Err(_) => gone(),
        };
        shown.map_err(|error| {
            Failure::plain(FAILED, &error).note(format!("showing the files of {root} by the pid"))
        })
    }
}

/// Does `work` on a thread of its own, while the calling one, which must be the process's first,
/// shows what the work says.
///
/// # Errors
///
/// When the system gives no thread.
pub(super) fn beside(work: impl FnOnce(&Viewer) -> Outcome + Send) -> io::Result<Outcome> {
    let (views, asked) = channel::<View>();
    let (answers, shown) = channel();
    std::thread::scope(|scope| {
        let viewer = Viewer { views, shown };
        let worker = Builder::new()
            .name("stand-in".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, move || work(&viewer))?;
        // Ends with the work, which has the other ends.
        for view in asked {
            if answers.send(view.enter()).is_err() {
                break;
            }
        }
        Ok(worker.join().unwrap_or(Outcome::FAILED))
    })
}

impl View {
    fn of(container: &ContainerConfig) -> Option<Self> {
        let RootSource::Directory(root) = &container.root.source else {
            return None;
        };
        let mut volumes: Vec<_> = container
            .volumes
            .iter()
            .map(|volume| Shown {
                source: volume.source.clone(),
                destination: volume.destination.clone(),
                read_only: volume.access != Access::ReadWrite,
            })
            .collect();
        // What lies deeper would be covered.
        volumes.sort_by_key(|volume| volume.destination.components().count());
        Some(Self {
            root: root.clone(),
            read_only: container.root.access != Access::ReadWrite,
            volumes,
        })
    }

    /// Gives the calling thread a mount namespace with nothing but these files.
    fn enter(&self) -> io::Result<()> {
        // Mounts can be copied only while they are in the namespace of this thread.
        let root = copy_of(&self.root)?;
        let volumes: Vec<_> = self
            .volumes
            .iter()
            .map(|volume| Ok((copy_of(&volume.source)?, volume)))
            .collect::<io::Result<_>>()?;
        let own = format!("/proc/{}", std::process::id());
        let proc_files = PROC_FILES.map(|name| format!("/proc/{name}"));
        let of_proc: Vec<_> = std::iter::once(own)
            .chain(proc_files)
            .map(|path| Ok((copy_of(Path::new(&path))?, path)))
            .collect::<io::Result<_>>()?;

        unshare(CloneFlags::CLONE_NEWNS)?;
        mount_change("/", PRIVATE)?;
        attach(&root, CWD, "/")?;
        for (copy, volume) in &volumes {
            // Its place is made with the container, and may have vanished since.
            let Ok(place) = within(&root, &volume.destination, OFlags::PATH) else {
                continue;
            };
            attach(copy, &place, "")?;
            if volume.read_only {
                read_only(copy)?;
            }
        }
        show_own_process(&root, &of_proc)?;
        if self.read_only {
            read_only(&root)?;
        }
        fchdir(&root)?;
        // With both names the same, the old root lies over the new one and is taken off at once.
        pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        chdir("/")?;
        Ok(())
    }
}

/// A `/proc` of the calling process alone, where the root has a place for one.
fn show_own_process(root: &OwnedFd, of_proc: &[(OwnedFd, String)]) -> io::Result<()> {
    let Ok(place) = within(
        root,
        Path::new("/proc"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW,
    ) else {
        return Ok(());
    };
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(
        "proc",
        by_descriptor(&place),
        "tmpfs",
        flags,
        Some(c"size=64k,mode=555"),
    )?;
    for (copy, path) in of_proc {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let proc = within(root, Path::new("/proc"), flags | OFlags::DIRECTORY)?;
        let name = path.rsplit('/').next().unwrap_or_default();
        let made = rustix::fs::fstat(copy)?;
        if rustix::fs::FileType::from_raw_mode(made.st_mode).is_dir() {
            rustix::fs::mkdirat(&proc, name, Mode::from_raw_mode(0o555))?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            rustix::fs::openat(&proc, name, flags, Mode::from_raw_mode(0o444))?;
        }
        attach(copy, &within(&proc, Path::new(name), flags)?, "")?;
    }
    Ok(())
}

/// A copy of what is mounted at a path and below, not attached anywhere.
fn copy_of(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    })
}

/// A file of the container. The container made its links: none of them leads out.
fn within(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )?)
}

fn attach(copy: &OwnedFd, at: impl std::os::fd::AsFd, path: &str) -> io::Result<()> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    flags.set(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH, path.is_empty());
    move_mount(copy, "", at, path, flags)?;
    // A copy of what the host shares would pass on to it what is mounted there next.
    Ok(mount_change(by_descriptor(copy), PRIVATE)?)
}

/// Refuses writes at an attached mount.
fn read_only(mount: &OwnedFd) -> io::Result<()> {
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    Ok(mount_remount(by_descriptor(mount), flags, c"")?)
}

fn by_descriptor(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
