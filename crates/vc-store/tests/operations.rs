//! Operations of several processes on one sandbox.

mod common;

use std::time::{Duration, Instant};

use common::{
    LIMITS, LockWatch, Process, edit, id, operation, operation_of, record, sandbox, store,
};
use rustix::fs::inotify::WatchFlags;
use vc_store::{Error, Store, StoreLimits, Verb, WhenBusy};
use vc_types::Hint;

#[test]
fn a_second_operation_is_refused_with_who_is_busy() {
    let (_root, store) = store();
    let creation = store.create(record("a"), Verb::Run).unwrap();
    creation.step("connect").unwrap();
    let dir = store.get(&id("a")).unwrap();
    let error = dir
        .begin_operation(Verb::Stop, WhenBusy::Refuse)
        .unwrap_err();
    let pid = std::process::id();
    assert_eq!(
        error.to_string(),
        format!("sandbox \"a\" is busy: process {pid} does \"run\", step \"connect\"")
    );
    assert!(error.hint().unwrap().contains("delete --force a"));
    let generation = creation.commit(|record| record.generation()).unwrap();
    let next = dir.begin_operation(Verb::Stop, WhenBusy::Refuse).unwrap();
    assert_eq!(
        next.commit(|record| record.generation()).unwrap(),
        generation + 1
    );
    assert!(dir.read().unwrap().operation().is_none());
}

#[test]
fn one_can_wait_for_the_end_of_another_up_to_a_bound() {
    let (_root, store) = store();
    let first = store.create(record("a"), Verb::Create).unwrap();
    let dir = first.sandbox().clone();
    let wait = WhenBusy::Wait(Duration::from_millis(80));
    let before = Instant::now();
    assert!(matches!(
        dir.begin_operation(Verb::Stop, wait),
        Err(Error::Busy { .. })
    ));
    assert!(before.elapsed() >= Duration::from_millis(80));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            first.commit(|_| ()).unwrap();
        });
        let wait = WhenBusy::Wait(Duration::from_secs(5));
        dir.begin_operation(Verb::Stop, wait)
            .unwrap()
            .commit(|_| ())
            .unwrap();
    });
}

#[test]
fn an_operation_that_is_dropped_is_over_and_its_changes_stay() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    let operation = dir.begin_operation(Verb::Update, WhenBusy::Refuse).unwrap();
    operation.update(|record| record.keep = true).unwrap();
    drop(operation);
    let record = dir.read().unwrap();
    assert!(record.operation().is_none());
    assert!(record.keep);
}

#[test]
fn a_dead_owner_stands_in_nobodys_way() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    operation_of(&dir, &Process::ended());
    let operation = dir.begin_operation(Verb::Gc, WhenBusy::Refuse).unwrap();
    let interrupted = operation.interrupted().unwrap();
    assert_eq!(
        (interrupted.verb, interrupted.step.as_str()),
        (Verb::Start, "launch")
    );
    store.remove_by(operation).unwrap();
    assert!(matches!(dir.read(), Err(Error::NotFound { .. })));
}

#[test]
fn taking_over_ends_the_owner_and_says_what_it_did() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    let owner = Process::shell("echo; exec sleep 60");
    operation_of(&dir, &owner.1);
    assert!(matches!(
        dir.begin_operation(Verb::Delete, WhenBusy::Refuse),
        Err(Error::Busy {
            verb: Verb::Start,
            ..
        })
    ));
    let operation = dir.take_over(Verb::Delete).unwrap();
    assert!(!owner.1.is_alive());
    let interrupted = operation.interrupted().unwrap();
    assert!(interrupted.cancelled);
    assert_eq!(interrupted.step, "launch");
    operation.commit(|_| ()).unwrap();
}

#[test]
fn an_owner_that_does_not_go_is_waited_for_no_longer_than_the_limit() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    let owner = Process::shell("trap '' TERM; echo; exec sleep 60");
    operation_of(&dir, &owner.1);
    let generation = dir.read().unwrap().generation();
    let before = Instant::now();
    let operation = dir.take_over(Verb::Kill).unwrap();
    assert!(before.elapsed() >= LIMITS.take_over);
    assert!(before.elapsed() < LIMITS.take_over * 4);
    assert!(owner.1.is_alive());
    let record = dir.read().unwrap();
    assert_eq!(record.generation(), generation + 1);
    assert_eq!(record.operation().unwrap().verb, Verb::Kill);
    operation.commit(|_| ()).unwrap();
}

#[test]
fn an_owner_that_ends_its_operation_is_not_waited_for() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    let owner = Process::shell("trap '' TERM; echo; exec sleep 60");
    operation_of(&dir, &owner.1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !dir.read().unwrap().operation().unwrap().cancelled {
                std::thread::sleep(Duration::from_millis(5));
            }
            edit(&dir, |value| value["operation"] = serde_json::Value::Null);
        });
        let before = Instant::now();
        let operation = dir.take_over(Verb::Delete).unwrap();
        assert!(before.elapsed() < LIMITS.take_over);
        assert!(operation.interrupted().is_none());
    });
}

#[test]
fn a_removal_is_let_end_before_it_is_taken_over() {
    let (root, _) = store();
    let limits = StoreLimits {
        take_over: Duration::from_secs(30),
        ..LIMITS
    };
    let store = Store::open(root.path().join("state"), limits);
    for verb in [Verb::DeleteContainer, Verb::Delete, Verb::Gc] {
        let dir = sandbox(&store, "a");
        let owner = Process::shell("echo; exec sleep 60");
        operation(&dir, verb, &owner.1);
        std::thread::scope(|scope| {
            let looked = LockWatch::of(&dir, WatchFlags::CLOSE_WRITE);
            let taker = scope.spawn(|| dir.take_over(Verb::Delete).unwrap());
            looked.wait();
            assert!(!taker.is_finished());
            let seen = dir.read().unwrap();
            let seen = seen.operation().unwrap();
            assert_eq!((seen.verb, seen.cancelled), (verb, false));
            edit(&dir, |value| value["operation"] = serde_json::Value::Null);
            let taken = taker.join().unwrap();
            assert!(taken.interrupted().is_none());
            assert!(owner.1.is_alive());
            store.remove_by(taken).unwrap();
        });
    }
}

#[test]
fn a_removal_that_does_not_end_is_taken_over_in_the_end() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    let owner = Process::shell("echo; exec sleep 60");
    operation(&dir, Verb::Delete, &owner.1);
    let before = Instant::now();
    let taken = dir.take_over(Verb::Delete).unwrap();
    assert!(before.elapsed() >= LIMITS.take_over);
    assert!(!owner.1.is_alive());
    assert!(taken.interrupted().unwrap().cancelled);
    taken.commit(|_| ()).unwrap();
}

#[test]
fn a_sandbox_that_its_owner_removes_does_not_exist() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    let owner = Process::shell("trap '' TERM; echo; exec sleep 60");
    operation_of(&dir, &owner.1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(60));
            store.remove(&id("a")).unwrap();
        });
        assert!(matches!(
            dir.take_over(Verb::Delete),
            Err(Error::NotFound { .. })
        ));
    });
}

#[test]
fn whoever_was_taken_over_can_store_nothing_more() {
    let (_root, store) = store();
    let mine = store.create(record("a"), Verb::Create).unwrap();
    let dir = mine.sandbox().clone();

    // Marked: the owner learns it at its next step.
    edit(&dir, |value| value["operation"]["cancelled"] = true.into());
    assert!(matches!(
        mine.step("next"),
        Err(Error::TakenOver {
            verb: Verb::Create,
            ..
        })
    ));
    assert!(matches!(mine.check(), Err(Error::TakenOver { .. })));

    // Taken: what it would store is refused, and the other one's operation stays.
    edit(&dir, |value| {
        value["generation"] = 99.into();
        value["operation"]["cancelled"] = false.into();
    });
    assert!(matches!(
        mine.update(|record| record.keep = true),
        Err(Error::TakenOver { .. })
    ));
    assert!(matches!(
        mine.commit(|record| record.keep = true),
        Err(Error::TakenOver { .. })
    ));
    let record = dir.read().unwrap();
    assert!(record.operation().is_some() && !record.keep);
}

#[test]
fn nobody_takes_over_from_itself() {
    let (_root, store) = store();
    let mine = store.create(record("a"), Verb::Create).unwrap();
    assert!(matches!(
        mine.sandbox().take_over(Verb::Delete),
        Err(Error::Busy { .. })
    ));
    mine.check().unwrap();
}

#[test]
fn a_failed_creation_that_removes_its_sandbox_leaves_nothing() {
    let (_root, store) = store();
    let creation = store.create(record("a"), Verb::Create).unwrap();
    store.remove(&id("a")).unwrap();
    drop(creation);
    assert_eq!(std::fs::read_dir(store.root()).unwrap().count(), 0);
}
