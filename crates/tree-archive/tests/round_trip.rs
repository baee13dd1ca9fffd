//! A tree that is packed and unpacked is the same tree.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test speaks by failing"
)]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tree_archive::{Destination, Incoming, Pack, Rules, unpack};

fn packed(path: &Path, root: &str, follow: bool) -> Vec<u8> {
    let mut archive = Vec::new();
    let pack = Pack {
        path: path.to_owned(),
        root: root.into(),
        follow,
    };
    pack.write(&mut archive).unwrap();
    archive
}

fn unpacked(archive: &[u8], to: &Path, incoming: &Incoming, rules: Rules) {
    let destination = Destination::open(to, incoming).unwrap();
    let directory = destination.directory.as_fd();
    unpack(archive, directory, &destination.names, rules).unwrap();
}

#[test]
fn everything_of_a_tree_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let from = root.path().join("from");
    let long = format!("{}/{}", "d".repeat(200), "ä".repeat(100));
    fs::create_dir_all(from.join(&long)).unwrap();
    fs::write(from.join(&long).join("deep"), "deep").unwrap();
    fs::write(from.join("a"), vec![7; 300_001]).unwrap();
    fs::hard_link(from.join("a"), from.join("b")).unwrap();
    symlink("nowhere//./x", from.join("link")).unwrap();
    symlink("y".repeat(300), from.join("long-link")).unwrap();
    mknodat(CWD, from.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = UnixListener::bind(from.join("socket")).unwrap();
    let time = UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
    File::open(from.join("a"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    fs::set_permissions(from.join("a"), fs::Permissions::from_mode(0o4641)).unwrap();
    fs::create_dir(from.join("closed")).unwrap();
    fs::write(from.join("closed/in"), "").unwrap();
    fs::set_permissions(from.join("closed"), fs::Permissions::from_mode(0o500)).unwrap();
    File::open(from.join("closed"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let before_1970 = UNIX_EPOCH - Duration::from_millis(1500);
    File::open(&from)
        .unwrap()
        .set_modified(before_1970)
        .unwrap();

    let archive = packed(&from, "from", false);
    let to = root.path().join("to");
    let rules = Rules {
        owners: true,
        set_id: true,
    };
    unpacked(&archive, &to, &Incoming::Named("from".into()), rules);

    assert_eq!(fs::read(to.join(&long).join("deep")).unwrap(), b"deep");
    let a = fs::metadata(to.join("a")).unwrap();
    assert_eq!(
        (a.len(), a.mode() & 0o7777, a.nlink()),
        (300_001, 0o4641, 2)
    );
    assert_eq!(a.ino(), fs::metadata(to.join("b")).unwrap().ino());
    assert_eq!(a.modified().unwrap(), time);
    assert_eq!(
        fs::read_link(to.join("link")).unwrap(),
        Path::new("nowhere//./x")
    );
    assert_eq!(
        fs::read_link(to.join("long-link")).unwrap(),
        Path::new(&"y".repeat(300))
    );
    assert!(fs::metadata(to.join("fifo")).unwrap().file_type().is_fifo());
    assert!(!to.join("socket").exists());
    let closed = fs::metadata(to.join("closed")).unwrap();
    assert_eq!(
        (closed.mode() & 0o7777, closed.modified().unwrap()),
        (0o500, time)
    );
    assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), before_1970);
}

#[test]
fn others_read_what_is_packed_and_are_read() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("d")).unwrap();
    fs::write(root.path().join("d/f"), "hello").unwrap();
    let archive = packed(&root.path().join("d"), "x", false);
    let mut names = Vec::new();
    for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().into_owned());
    }
    assert_eq!(names, [Path::new("x/"), Path::new("x/f")]);

    let mut builder = tar::Builder::new(Vec::new());
    let long = "l".repeat(150);
    builder
        .append_path_with_name(root.path().join("d/f"), format!("made/{long}"))
        .unwrap();
    let archive = builder.into_inner().unwrap();
    unpacked(&archive, root.path(), &Incoming::Archive, Rules::default());
    assert_eq!(
        fs::read_to_string(root.path().join("made").join(long)).unwrap(),
        "hello"
    );
}

#[test]
fn a_link_is_copied_or_followed_and_contents_leave_the_directory_alone() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/f"), "hello").unwrap();
    symlink("d", at("l")).unwrap();
    let to = at("to");
    fs::create_dir(&to).unwrap();
    fs::set_permissions(&to, fs::Permissions::from_mode(0o711)).unwrap();
    let named = Incoming::Named("l".into());
    unpacked(&packed(&at("l"), "l", false), &to, &named, Rules::default());
    assert_eq!(fs::read_link(to.join("l")).unwrap(), Path::new("d"));
    fs::remove_file(to.join("l")).unwrap();
    unpacked(&packed(&at("l"), "l", true), &to, &named, Rules::default());
    assert_eq!(fs::read_to_string(to.join("l/f")).unwrap(), "hello");

    let contents = packed(&at("l/."), ".", false);
    unpacked(&contents, &to, &Incoming::Contents, Rules::default());
    assert_eq!(fs::read_to_string(to.join("f")).unwrap(), "hello");
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o711);
    unpacked(&contents, &at("new"), &Incoming::Contents, Rules::default());
    assert_eq!(fs::read_to_string(at("new/f")).unwrap(), "hello");
}
