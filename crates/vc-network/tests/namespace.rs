//! Opening, making and deleting network namespaces.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use common::{TestNamespace, need_root};
use vc_network::{Error, MadeNamespace, Namespace, Scan};
use vc_types::Hint;

fn own() -> std::path::PathBuf {
    fs::read_link("/proc/thread-self/ns/net").unwrap()
}

#[test]
fn the_hosts_namespace_is_refused_by_whatever_path() {
    need_root!();
    let temp = tempfile::tempdir().unwrap();
    let link = temp.path().join("link");
    std::os::unix::fs::symlink("/proc/self/ns/net", &link).unwrap();
    for path in [Path::new("/proc/self/ns/net"), &link] {
        let error = Namespace::open(path).unwrap_err();
        assert!(matches!(error, Error::HostNamespace { .. }), "{error}");
        assert!(error.to_string().contains("cannot share the host's"));
        assert!(error.hint().unwrap().contains("of its own"));
    }
}

#[test]
fn what_is_no_network_namespace_is_refused() {
    need_root!();
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.as_path(), temp.path(), Path::new("/proc/self/ns/uts")] {
        let error = Namespace::open(path).unwrap_err();
        assert!(
            matches!(error, Error::NotANetworkNamespace { .. }),
            "{error}"
        );
    }
    for path in [temp.path().join("none"), file.join("below")] {
        let error = Namespace::open(path).unwrap_err();
        assert!(matches!(error, Error::NamespaceGone { .. }), "{error}");
    }
}

#[test]
fn what_runs_inside_leaves_the_caller_where_it_is() {
    need_root!();
    let test = TestNamespace::new();
    let before = own();
    let namespace = test.open();
    let inside = namespace
        .run(|| fs::read_link("/proc/thread-self/ns/net"))
        .unwrap();
    assert_ne!(inside, before);
    assert_eq!(own(), before);

    let error = namespace
        .run(|| Err::<(), _>(io::Error::other("of the closure")))
        .unwrap_err();
    assert!(format!("{error:?}").contains("of the closure"));
    let panic = catch_unwind(AssertUnwindSafe(|| {
        namespace.run(|| -> io::Result<()> { panic!("inside") })
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"inside"));
    assert_eq!(own(), before);
}

#[test]
fn one_that_was_made_is_kept_by_its_file_and_deleted_again() {
    need_root!();
    let temp = tempfile::tempdir().unwrap();
    let made = MadeNamespace::plan(temp.path(), "web").unwrap();
    let id = made.make().unwrap().id();
    // Nobody is in it and nobody holds it, and yet it is there.
    let namespace = Namespace::open(made.path()).unwrap();
    assert_eq!(namespace.id(), id);
    assert_eq!(Scan::of(&namespace).unwrap(), Scan::default());
    let loopback = std::net::Ipv4Addr::LOCALHOST;
    namespace
        .run(|| std::net::TcpListener::bind((loopback, 0)))
        .unwrap();

    let error = made.make().unwrap_err();
    assert!(format!("{error:?}").contains("AlreadyExists"), "{error:?}");
    assert_eq!(Namespace::open(made.path()).unwrap().id(), id);

    let text = serde_json::to_string(&made).unwrap();
    let stored: MadeNamespace = serde_json::from_str(&text).unwrap();
    stored.delete().unwrap();
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    stored.delete().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(temp.path().to_str().unwrap()));
}

#[test]
fn a_file_that_an_interrupted_making_left_is_deleted() {
    need_root!();
    let temp = tempfile::tempdir().unwrap();
    let made = MadeNamespace::plan(temp.path(), "web").unwrap();
    fs::write(made.path(), "").unwrap();
    made.delete().unwrap();
    assert!(!made.path().exists());
}
