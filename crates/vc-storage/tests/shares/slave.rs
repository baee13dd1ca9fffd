//! Sources below which mounts come and go with those of the host.

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use tempfile::TempDir;
use vc_storage::{Access, Rights, SharePlan, Slave, Source};

use crate::fuse::{Client, ROOT};
use crate::harness::{ROOT_USER, Served, serve};

const BUSY: i32 = 16;
const INVALID: i32 = 22;
const READ_ONLY: i32 = 30;
const WRITE: u32 = 1;
const TRUNCATE: u32 = 0o1000;

/// A directory on a mount that is shared, with a place for mounts in it, as `shared` and as a slave of
/// this kind in a share.
fn with_slave(read_only: bool) -> (TempDir, Served, Client, String) {
    // What is mounted is nobody else's business, and goes with this process.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    mount_bind(path, path).unwrap();
    mount_change(path, MountPropagationFlags::SHARED).unwrap();
    std::fs::create_dir(path.join("d")).unwrap();
    let name = Slave { read_only }.name("x");
    let mut plan = SharePlan::new("a test's share", Rights::Invoker(ROOT_USER));
    plan.extended_attributes = true;
    let access = match read_only {
        true => Access::ReadOnly,
        false => Access::ReadWrite,
    };
    plan.add(&name, Source::open(path).unwrap(), access);
    plan.add("shared", Source::open(path).unwrap(), Access::ReadWrite);
    let mut served = serve(plan);
    let client = served.client();
    let late = path.join("d");
    mount("tmpfs", &late, "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::write(late.join("file"), "late").unwrap();
    std::fs::create_dir(late.join("empty")).unwrap();
    (directory, served, client, name)
}

fn end(directory: &TempDir) {
    let late = directory.path().join("d");
    let _ = unmount(late, UnmountFlags::DETACH);
    unmount(directory.path(), UnmountFlags::DETACH).unwrap();
}

pub(crate) fn a_read_only_slave_refuses_writes_to_what_is_mounted_later() {
    let (directory, served, mut client, name) = with_slave(true);
    let top = client.walk(&name).unwrap().node;
    let late = client.walk(&format!("{name}/d")).unwrap().node;
    let file = client.walk(&format!("{name}/d/file")).unwrap().node;
    let empty = client.walk(&format!("{name}/d/empty")).unwrap().node;
    assert_eq!(client.read(file).unwrap(), b"late");
    for flags in [WRITE, 2, TRUNCATE] {
        assert_eq!(client.open(file, flags).unwrap_err(), READ_ONLY, "{flags}");
    }
    assert_eq!(client.create(late, "new").unwrap_err(), READ_ONLY);
    assert_eq!(client.mkdir(late, "new").unwrap_err(), READ_ONLY);
    assert_eq!(client.symlink(late, "new", "x").unwrap_err(), READ_ONLY);
    assert_eq!(client.link(file, empty, "new").unwrap_err(), READ_ONLY);
    assert_eq!(
        client.mknod(late, "new", 0o100_644, 0).unwrap_err(),
        READ_ONLY
    );
    assert_eq!(client.unlink(late, "file").unwrap_err(), READ_ONLY);
    assert_eq!(client.rmdir(late, "empty").unwrap_err(), READ_ONLY);
    assert_eq!(client.rename(late, "file", "new").unwrap_err(), READ_ONLY);
    assert_eq!(client.set_mode(file, 0o777).unwrap_err(), READ_ONLY);
    assert_eq!(client.set_attribute(file, "user.x").unwrap_err(), READ_ONLY);
    // Nor past what is known of the directories on the way.
    let shared = client.walk("shared").unwrap().node;
    for (at, tried) in [
        (ROOT, format!("{name}/d/file")),
        (ROOT, format!("./{name}/d")),
        (shared, format!("../{name}/d/file")),
        (top, "d/file".to_owned()),
        (late, "..".to_owned()),
        (late, ".".to_owned()),
    ] {
        assert_eq!(client.lookup(at, &tried).unwrap_err(), INVALID, "{tried}");
    }
    // What is forgotten too often is not known at all.
    client.forget(file, 100);
    assert!(client.open(file, WRITE).is_err());
    let file = client.lookup(late, "file").unwrap().node;
    assert_eq!(client.open(file, WRITE).unwrap_err(), READ_ONLY);
    // The same directory as a source that is none is written, and has nothing of the mount.
    client.create(shared, "new").unwrap();
    let covered = client.lookup(shared, "d").unwrap().node;
    assert!(client.names(covered).unwrap().is_empty());
    let found = std::fs::read_to_string(directory.path().join("d/file"));
    assert_eq!(found.unwrap(), "late");
    drop(served);
    end(&directory);
}

pub(crate) fn what_the_guest_has_forgotten_of_a_slave_can_be_unmounted() {
    let (directory, served, mut client, name) = with_slave(false);
    let late = directory.path().join("d");
    let d = client.walk(&format!("{name}/d")).unwrap();
    let file = client.lookup(d.node, "file").unwrap();
    // The guest keeps neither when nobody uses them.
    assert_eq!([d.valid_s[0], file.valid_s[0]], [0, 0]);
    assert_ne!(client.walk("shared").unwrap().valid_s[0], 0);
    let made = client.mkdir(d.node, "new").unwrap();
    assert_eq!(made.valid_s[0], 0);
    assert!(late.join("new").exists());
    let refused = unmount(&late, UnmountFlags::empty()).unwrap_err();
    assert_eq!(refused.raw_os_error(), BUSY);
    for node in [d.node, file.node, made.node] {
        client.forget(node, 1);
    }
    unmount(&late, UnmountFlags::empty()).unwrap();
    let covered = client.walk(&format!("{name}/d")).unwrap().node;
    assert!(client.names(covered).unwrap().is_empty());
    drop(served);
    end(&directory);
}
