use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use vc_launch::User;
use vc_storage::{Access, Rights, SharePlan, Source};

use crate::harness::{ROOT_USER, one, serve};

const NOT_PERMITTED: i32 = 13;
const NOT_ALLOWED: i32 = 1;
const READ_ONLY: i32 = 30;
const BLOCK_DEVICE: u32 = 0o60_666;

pub(crate) fn a_read_only_source_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "x").unwrap();
    // A writable source beside it, so that the share keeps the rights to write.
    let other = tempfile::tempdir().unwrap();
    let mut plan = one(
        Rights::Invoker(ROOT_USER),
        directory.path(),
        Access::ReadOnly,
    );
    plan.add(
        "other",
        Source::open(other.path()).unwrap(),
        Access::ReadWrite,
    );
    let mut served = serve(plan);
    let mut client = served.client();
    let shared = client.walk("shared").unwrap().node;
    let file = client.walk("shared/file").unwrap().node;
    assert_eq!(client.create(shared, "new").unwrap_err(), READ_ONLY);
    assert_eq!(client.open(file, 1).unwrap_err(), READ_ONLY);
    assert_eq!(client.unlink(shared, "file").unwrap_err(), READ_ONLY);
    let other = client.walk("other").unwrap().node;
    client.create(other, "new").unwrap();
}

pub(crate) fn a_writable_source_is_written_as_the_guest_says() {
    let directory = tempfile::tempdir().unwrap();
    chown(directory.path(), Some(1234), Some(1234)).unwrap();
    let plan = one(
        Rights::Invoker(ROOT_USER),
        directory.path(),
        Access::ReadWrite,
    );
    let mut served = serve(plan);
    let mut client = served.client();
    let shared = client.walk("shared").unwrap().node;
    client.uid = 1234;
    let made = client.create(shared, "new").unwrap();
    assert_eq!(made.uid, 1234);
    let new = directory.path().join("new").metadata().unwrap();
    assert_eq!((new.uid(), new.mode() & 0o777), (1234, 0o644));
}

pub(crate) fn a_user_s_share_has_the_user_s_rights() {
    let directory = tempfile::tempdir().unwrap();
    chown(directory.path(), Some(1234), Some(1234)).unwrap();
    let roots = tempfile::tempdir().unwrap();
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(roots.path(), mode).unwrap();
    let user = Rights::Invoker(User {
        uid: 1234,
        gid: 1234,
        groups: Vec::new(),
    });
    let mut plan = one(user, directory.path(), Access::ReadWrite);
    plan.add(
        "roots",
        Source::open(roots.path()).unwrap(),
        Access::ReadWrite,
    );
    let mut served = serve(plan);
    let mut client = served.client();
    let shared = client.walk("shared").unwrap().node;
    client.uid = 1234;
    client.create(shared, "new").unwrap();
    let new = directory.path().join("new").metadata().unwrap();
    assert_eq!(new.uid(), 1234);
    let roots = client.walk("roots").unwrap().node;
    assert_eq!(client.names(roots).unwrap_err(), NOT_PERMITTED);
}

pub(crate) fn no_device_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let plan = one(
        Rights::Invoker(ROOT_USER),
        directory.path(),
        Access::ReadWrite,
    );
    let mut served = serve(plan);
    let mut client = served.client();
    let shared = client.walk("shared").unwrap().node;
    let disk = (8 << 8) | 1;
    let made = client.mknod(shared, "disk", BLOCK_DEVICE, disk);
    assert_eq!(made.unwrap_err(), NOT_ALLOWED);
}

pub(crate) fn a_file_can_be_shared() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("one");
    std::fs::write(&path, "one").unwrap();
    std::fs::write(directory.path().join("two"), "two").unwrap();
    let mut plan = SharePlan::new("a test's share", Rights::Invoker(ROOT_USER));
    plan.add("files/0", Source::open(&path).unwrap(), Access::ReadWrite);
    let mut served = serve(plan);
    let mut client = served.client();
    let files = client.walk("files").unwrap().node;
    assert_eq!(client.names(files).unwrap(), ["0"]);
    let file = client.walk("files/0").unwrap().node;
    assert_eq!(client.read(file).unwrap(), b"one");
    client.open(file, 1).unwrap();
    assert_eq!(client.create(files, "new").unwrap_err(), READ_ONLY);
}
