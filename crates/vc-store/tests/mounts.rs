//! What needs a mount: a full disk, and a mount inside a sandbox's directory. Each test has a
//! mount namespace of its own, which ends with its thread.

mod common;

use std::fs;
use std::path::Path;

use common::{id, record, sandbox, store};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use vc_store::{Error, Store, Verb};
use vc_types::Hint;

/// Runs `test` on a thread with mounts of its own, where this process may have some. The
/// directory that it gets is removed when nothing is mounted there any more.
#[allow(clippy::print_stderr, reason = "a test that is skipped says why")]
fn with_own_mounts(test: impl FnOnce(&Path) + Send + 'static) {
    let (root, _) = store();
    let path = root.path().to_owned();
    let thread = std::thread::spawn(move || {
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        let ready = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>));
        match ready {
            Ok(()) => test(&path),
            Err(errno) => eprintln!("skipped: no mount namespace of its own: {errno}"),
        }
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn tmpfs(on: &Path, options: &str) {
    let none = MsFlags::empty();
    let mounted = mount(Some("tmpfs"), on, Some("tmpfs"), none, Some(options));
    assert_eq!(mounted, Ok(()));
}

#[test]
fn a_full_disk_loses_no_state_and_stops_no_removal() {
    with_own_mounts(|root| {
        tmpfs(root, "size=64k,mode=700");
        let store = Store::open(root, common::LIMITS);
        let dir = sandbox(&store, "a");
        let operation = dir
            .begin_operation(Verb::Update, vc_store::WhenBusy::Refuse)
            .unwrap();
        let before = fs::read(dir.path().join("state.json")).unwrap();
        let _ = fs::write(root.join("fill"), vec![0; 128 << 10]);

        let error = operation.step("x".repeat(4096)).unwrap_err();
        let Error::Io { source, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("state.json"), "{error}");
        assert!(error.hint().unwrap().contains("space"));
        assert_eq!(fs::read(dir.path().join("state.json")).unwrap(), before);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(matches!(
            store.create(record("b"), Verb::Create),
            Err(Error::Io { .. })
        ));
        assert_eq!(fs::read_dir(root).unwrap().count(), 2, "a and the filler");

        store.remove_by(operation).unwrap();
        assert_eq!(fs::read_dir(root).unwrap().count(), 1);
    });
}

#[test]
fn removing_enters_no_mount_and_says_where_it_is() {
    with_own_mounts(|root| {
        let store = Store::open(root.join("state"), common::LIMITS);
        let outside = root.join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "kept").unwrap();
        let dir = sandbox(&store, "a");
        for (name, bind) in [("same", true), ("other", false)] {
            let on = dir.path().join("deep").join(name);
            fs::create_dir_all(&on).unwrap();
            if bind {
                let flags = MsFlags::MS_BIND;
                assert_eq!(
                    mount(Some(&outside), &on, None::<&str>, flags, None::<&str>),
                    Ok(())
                );
            } else {
                tmpfs(&on, "size=64k");
                fs::write(on.join("file"), "kept").unwrap();
            }
        }
        fs::write(dir.path().join("deep/gone"), "").unwrap();
        let error = store.remove(&id("a")).unwrap_err();
        let Error::Mounted { path } = &error else {
            panic!("{error:?}")
        };
        assert!(error.hint().unwrap().contains("umount"));
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "kept");
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept");
        assert!(!path.parent().unwrap().join("gone").exists());
        assert!(store.list().unwrap().is_empty());
        assert_eq!(store.stale().unwrap().len(), 1);
    });
}
