//! Making, finding, reading and removing sandboxes' directories.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use common::{change_while_removed, edit, id, record, sandbox, snapshot, store};
use vc_store::{Error, FailureRecords, Listed, Store, StoreLimits, Unreadable, Verb, View};
use vc_types::Hint;

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).map_or(0, |meta| meta.permissions().mode() & 0o7777)
}

#[test]
fn a_sandbox_is_its_owners_alone() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    assert_eq!(mode(store.root()), 0o700);
    assert_eq!(mode(dir.path()), 0o700);
    assert_eq!(mode(dir.path().join("state.json")), 0o600);
    assert_eq!(mode(dir.path().join("lock")), 0o600);
}

#[test]
fn an_existing_id_is_refused_before_anything_is_touched() {
    let (_root, store) = store();
    sandbox(&store, "a");
    let before = snapshot(store.root());
    let error = store.create(record("a"), Verb::Create).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }));
    assert!(error.hint().unwrap().contains("virtc delete a"));
    assert_eq!(snapshot(store.root()), before);
}

#[test]
fn one_of_many_makes_an_id() {
    let (_root, store) = store();
    let barrier = Barrier::new(8);
    let made: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    match store.create(record("a"), Verb::Create) {
                        Ok(guard) => guard.commit(|_| 1).unwrap(),
                        Err(Error::Exists { .. }) => 0,
                        Err(error) => panic!("{error:?}"),
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(made, 1);
    assert_eq!(fs::read_dir(store.root()).unwrap().count(), 1);
}

#[test]
fn a_root_that_others_write_to_is_refused() {
    let (root, _) = store();
    let open = root.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let store = Store::open(&open, StoreLimits::default());
    refuses_its_root(&store);
}

#[test]
fn a_root_of_another_user_is_not_believed() {
    let (_root, store) = store();
    sandbox(&store, "a");
    if std::os::unix::fs::chown(store.root(), Some(65_534), None).is_ok() {
        refuses_its_root(&store);
    }
}

fn refuses_its_root(store: &Store) {
    let a = id("a");
    for error in [
        store.create(record("a"), Verb::Create).map(drop),
        store.get(&a).map(drop),
        store.list().map(drop),
        store.stale().map(drop),
        store.remove(&a).map(drop),
        store.remove_leftover(".removing:a:1"),
    ] {
        assert!(matches!(error, Err(Error::UnsafeRoot { .. })), "{error:?}");
    }
}

#[test]
fn a_root_that_is_not_there_has_no_sandboxes() {
    let (_root, store) = store();
    assert!(store.list().unwrap().is_empty());
    assert!(store.stale().unwrap().is_empty());
    assert!(!store.remove(&id("a")).unwrap());
    let error = store.get(&id("a")).unwrap_err();
    assert!(error.to_string().contains("does not exist"));
    assert!(!store.root().exists());
}

#[test]
fn a_list_names_what_is_broken_and_waits_for_nobody() {
    let (_root, store) = store();
    for name in [
        "b", "a", "newer", "cut", "gone", "fifo", "other", "busy", ".hidden",
    ] {
        sandbox(&store, name);
    }
    let state = |name: &str| store.root().join(name).join("state.json");
    edit(&store.get(&id("newer")).unwrap(), |value| {
        value["version"] = 9.into()
    });
    edit(&store.get(&id("other")).unwrap(), |value| {
        value["id"] = "b".into()
    });
    let bytes = fs::read(state("cut")).unwrap();
    fs::write(state("cut"), &bytes[..bytes.len() / 2]).unwrap();
    fs::remove_file(state("gone")).unwrap();
    fs::remove_file(state("fifo")).unwrap();
    let fifo = std::process::Command::new("mkfifo")
        .arg(state("fifo"))
        .status()
        .unwrap();
    assert!(fifo.success());
    fs::create_dir(store.root().join(".removing:x:1")).unwrap();
    fs::write(store.root().join("file"), "").unwrap();
    let lock = fs::File::open(store.root().join("busy/lock")).unwrap();
    lock.lock().unwrap();

    let before = Instant::now();
    let listed = store.list().unwrap();
    assert!(before.elapsed() < Duration::from_millis(200));
    let shown: Vec<_> = listed
        .iter()
        .map(|listed| match listed {
            Listed::Sandbox(record) => record.id().to_string(),
            Listed::Broken { id, path, error } => {
                assert_eq!(*path, state(id.as_str()));
                let kind = match error {
                    Unreadable::Newer { version: 9, .. } => "newer",
                    Unreadable::Json(_) => "json",
                    Unreadable::Missing => "missing",
                    Unreadable::OtherSandbox { .. } => "other",
                    other => panic!("{id}: {other}"),
                };
                format!("{id}!{kind}")
            }
        })
        .collect();
    assert_eq!(
        shown,
        [
            ".hidden",
            "a",
            "b",
            "busy",
            "cut!json",
            "fifo!json",
            "gone!missing",
            "newer!newer",
            "other!other"
        ]
    );
}

#[test]
fn no_reader_writes() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    common::operation_of(&dir, &common::Process::ended());
    let broken = sandbox(&store, "broken");
    fs::write(broken.path().join("state.json"), "{").unwrap();
    fs::remove_file(broken.path().join("lock")).unwrap();
    edit(&sandbox(&store, "rebooted"), |value| {
        value["boot_id"] = "x".into()
    });
    fs::create_dir(store.root().join(".creating:x:1")).unwrap();
    let before = snapshot(store.root());

    for listed in store.list().unwrap() {
        if let Listed::Sandbox(record) = listed {
            let _ = View::of(&record).status();
        }
    }
    let _ = store.stale().unwrap();
    let _ = store.get(&id("a")).unwrap().read().unwrap();
    assert!(matches!(broken.read(), Err(Error::Broken { .. })));
    assert!(store.get(&id("none")).is_err());
    let failures = FailureRecords::new(store.root().join("failures"), 3);
    assert!(failures.list().unwrap().is_empty());

    assert_eq!(snapshot(store.root()), before);
}

#[test]
fn a_removed_sandbox_is_gone_for_its_old_handles_too() {
    let (_root, store) = store();
    let old = sandbox(&store, "a");
    assert!(store.remove(&id("a")).unwrap());
    assert!(!store.remove(&id("a")).unwrap());
    sandbox(&store, "a");
    assert!(matches!(old.read(), Err(Error::NotFound { .. })));
    assert!(matches!(
        old.update(|record| record.keep = true),
        Err(Error::NotFound { .. })
    ));
    assert!(!store.remove_dir(&old).unwrap());
    assert!(!store.get(&id("a")).unwrap().read().unwrap().keep);
    assert_eq!(fs::read_dir(store.root()).unwrap().count(), 1);
    let new = store.get(&id("a")).unwrap();
    assert!(store.remove_dir(&new).unwrap());
    assert!(!store.remove_dir(&new).unwrap());
    assert_eq!(fs::read_dir(store.root()).unwrap().count(), 0);
}

#[test]
fn removing_follows_no_link_and_takes_what_an_earlier_one_left() {
    let (root, store) = store();
    let outside = root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    let dir = sandbox(&store, "a");
    fs::create_dir_all(dir.path().join("x/y")).unwrap();
    symlink(&outside, dir.path().join("x/link")).unwrap();
    symlink(outside.join("file"), dir.path().join("link")).unwrap();
    let odd = {
        use std::os::unix::ffi::OsStrExt;
        std::ffi::OsStr::from_bytes(b"x\xff")
    };
    fs::write(dir.path().join(odd), "").unwrap();
    for leftover in [".removing:a:7-0-0", ".removing:ab:7-0-0"] {
        fs::create_dir_all(store.root().join(leftover).join("deep")).unwrap();
    }
    assert!(store.remove(&id("a")).unwrap());
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept");
    let left: Vec<_> = fs::read_dir(store.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, [".removing:ab:7-0-0"]);
}

#[test]
fn a_link_or_a_file_in_place_of_a_sandbox_is_none() {
    let (root, store) = store();
    sandbox(&store, "a");
    symlink(root.path(), store.root().join("link")).unwrap();
    fs::write(store.root().join("file"), "").unwrap();
    for name in ["link", "file"] {
        assert!(matches!(store.get(&id(name)), Err(Error::NotFound { .. })));
        assert!(!store.remove(&id(name)).unwrap());
        assert!(matches!(
            store.create(record(name), Verb::Run),
            Err(Error::Exists { .. })
        ));
    }
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn a_broken_sandbox_without_a_lock_can_be_removed() {
    let (_root, store) = store();
    fs::create_dir_all(store.root().join("a")).unwrap();
    assert!(matches!(
        &store.list().unwrap()[..],
        [Listed::Broken { .. }]
    ));
    assert!(store.remove(&id("a")).unwrap());
    assert_eq!(fs::read_dir(store.root()).unwrap().count(), 0);
}

#[test]
fn a_lock_that_is_held_stops_a_change_within_its_limit_but_no_removal() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    let lock = fs::File::open(dir.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let before = Instant::now();
    let error = dir.update(|record| record.keep = true).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }));
    assert!(
        error.to_string().contains("300 ms (limits.lock_ms)"),
        "{error}"
    );
    assert!(before.elapsed() >= Duration::from_millis(300));
    assert!(before.elapsed() < Duration::from_secs(2));
    assert!(!dir.read().unwrap().keep);
    assert!(store.remove(&id("a")).unwrap());
}

#[test]
fn who_waits_for_the_lock_of_a_removed_sandbox_learns_it() {
    let (_root, store) = store();
    let changed = change_while_removed(&store, |_| {
        sandbox(&store, "a");
    });
    assert!(matches!(changed, Err(Error::NotFound { .. })));
    assert!(!store.get(&id("a")).unwrap().read().unwrap().keep);
}

#[test]
fn who_waits_for_the_lock_of_a_sandbox_that_is_all_gone_learns_it_too() {
    let (_root, store) = store();
    let changed = change_while_removed(&store, |hidden| fs::remove_dir_all(hidden).unwrap());
    assert!(matches!(changed, Err(Error::NotFound { .. })));
}

#[test]
fn a_sandbox_goes_whole_while_others_take_its_lock() {
    let (root, _) = store();
    let store = Store::open(root.path().join("state"), StoreLimits::default());
    for _ in 0..100 {
        let dir = sandbox(&store, "a");
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        match dir.update(|record| record.keep = !record.keep) {
                            Ok(()) => {}
                            Err(Error::NotFound { .. }) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
            store.remove(&id("a")).unwrap();
        });
        assert_eq!(fs::read_dir(store.root()).unwrap().count(), 0);
    }
}

#[test]
fn changes_of_many_are_all_kept() {
    let (_root, store) = store();
    sandbox(&store, "a");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let limits = StoreLimits::default();
                let dir = Store::open(store.root(), limits).get(&id("a")).unwrap();
                for n in 0..25 {
                    let name = format!("{thread}-{n}");
                    dir.update(|record| record.assets.insert(name, String::new()))
                        .unwrap();
                    dir.read().unwrap();
                }
            });
        }
    });
    assert_eq!(
        store.get(&id("a")).unwrap().read().unwrap().assets.len(),
        100
    );
}

#[test]
fn a_change_that_fails_stores_nothing() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    let result = dir.try_update(|record| {
        record.keep = true;
        Err::<(), _>(Error::NotFound { id: id("x") })
    });
    assert!(result.is_err());
    assert!(!dir.read().unwrap().keep);
}

#[test]
fn the_drivers_state_is_kept_as_it_is() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    dir.update(|record| record.set_driver_state(Some(&("qemu", 7))))
        .unwrap()
        .unwrap();
    let record = dir.read().unwrap();
    assert_eq!(
        record.driver_state::<(String, u8)>().unwrap(),
        Some(("qemu".to_owned(), 7))
    );
    assert!(record.driver_state::<bool>().is_err());
}
