//! The guest's own file systems.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, mount, mount_move};

use crate::error::{Attempt as _, Result};

/// Where the new root is put together.
const NEW_ROOT: &str = "/newroot";

struct Entry {
    target: &'static str,
    kind: &'static str,
    flags: MountFlags,
    data: &'static std::ffi::CStr,
}

const HARMLESS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// What the agent itself needs.
const FIRST: [Entry; 3] = [
    Entry {
        target: "proc",
        kind: "proc",
        flags: HARMLESS,
        data: c"",
    },
    Entry {
        target: "sys",
        kind: "sysfs",
        flags: HARMLESS,
        data: c"",
    },
    Entry {
        target: "dev",
        kind: "devtmpfs",
        flags: MountFlags::NOSUID,
        data: c"mode=0755",
    },
];

/// What containers and their programs expect besides.
const REST: [Entry; 5] = [
    Entry {
        target: "/dev/pts",
        kind: "devpts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: c"mode=0620,ptmxmode=0666,gid=5",
    },
    Entry {
        target: "/dev/shm",
        kind: "tmpfs",
        flags: HARMLESS,
        data: c"mode=1777",
    },
    Entry {
        target: "/run",
        kind: "tmpfs",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: c"mode=0755",
    },
    Entry {
        target: "/tmp",
        kind: "tmpfs",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: c"mode=1777",
    },
    Entry {
        target: "/sys/fs/cgroup",
        kind: "cgroup2",
        flags: HARMLESS,
        // Moving processes is what a container's start does; forks cost a little more for it.
        data: c"nsdelegate,memory_recursiveprot,favordynmods",
    },
];

/// Moves from the initramfs onto a fresh tmpfs and returns the initramfs.
///
/// A root that is the initramfs cannot be left with pivot_root, which every container does.
pub(super) fn leave_initramfs() -> Result<OwnedFd> {
    let initramfs = open(
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .attempt(|| "open the initramfs".into())?;
    create_dir(Path::new(NEW_ROOT))?;
    mount(
        "root",
        NEW_ROOT,
        "tmpfs",
        MountFlags::empty(),
        Some(c"mode=0755"),
    )
    .attempt(|| "mount the guest's root".into())?;
    for entry in &FIRST {
        let target = Path::new(NEW_ROOT).join(entry.target);
        create_dir(&target)?;
        mount_entry(entry, &target)?;
    }
    hurry_grace_periods();
    rustix::process::chdir(NEW_ROOT).attempt(|| "enter the guest's root".into())?;
    mount_move(".", "/").attempt(|| "move the guest's root".into())?;
    rustix::process::chroot(".").attempt(|| "change to the guest's root".into())?;
    rustix::process::chdir("/").attempt(|| "enter the guest's root".into())?;
    Ok(initramfs)
}

/// Mounts the rest, in the new root.
pub(super) fn finish() -> Result<()> {
    for entry in &REST {
        let target = Path::new(entry.target);
        if !target.exists() {
            create_dir(target)?;
        }
        mount_entry(entry, target)?;
    }
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(target, link).attempt(|| format!("link {link}"))?;
    }
    create_dir(Path::new("/etc"))
}

/// Lets the kernel's grace periods be short: loading modules, moving between cgroups and unmounting
/// wait for them, and a guest has few processors to disturb.
fn hurry_grace_periods() {
    // A kernel for one processor has no such file, and no such waits.
    let _ = fs::write(Path::new(NEW_ROOT).join("sys/kernel/rcu_expedited"), "1");
}

fn mount_entry(entry: &Entry, target: &Path) -> Result<()> {
    mount(
        entry.kind,
        target,
        entry.kind,
        entry.flags,
        Some(entry.data),
    )
    .attempt(|| format!("mount {} on {}", entry.kind, target.display()))
}

fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir(path).attempt(|| format!("create {}", path.display()))
}
