//! What is shown, and what is found, of sandboxes whose processes are gone.

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{Process, edit, operation_of, record, sandbox, snapshot, store};
use vc_store::{
    Activity, ContainerRecord, DeviceProcess, Error, Stale, StaleReason, Verb, View, WhenBusy,
};
use vc_types::{ContainerState, EndReason, ExitStatus, ProcessIdentity, SandboxState};

fn me() -> Option<ProcessIdentity> {
    ProcessIdentity::current().ok()
}

#[test]
fn a_running_sandbox_with_its_keeper_is_running() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    dir.update(|record| (record.state, record.keeper) = (SandboxState::Running, me()))
        .unwrap();
    let view = View::of(&dir.read().unwrap());
    assert_eq!(
        (view.state, view.end_reason.clone()),
        (SandboxState::Running, None)
    );
    assert_eq!(view.status(), "running");
    assert!(store.stale().unwrap().is_empty());
}

#[test]
fn the_reason_of_an_end_is_seen_from_who_is_gone() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    let view = |change: &dyn Fn(&mut vc_store::SandboxRecord)| {
        let mut record = dir.read().unwrap();
        (record.state, record.keeper) = (SandboxState::Running, me());
        change(&mut record);
        View::of(&record)
    };
    let gone = Process::ended();
    let keeper = view(&|record| record.keeper = Some(gone.clone()));
    assert_eq!(keeper.end_reason, Some(EndReason::KeeperEnded));
    assert_eq!(keeper.state, SandboxState::Stopped);
    let vmm = view(&|record| record.vmm_process = Some(gone.clone()));
    assert!(matches!(vmm.end_reason, Some(EndReason::VmCrashed { .. })));
    let device = view(&|record| {
        let name = "share of the user's files".to_owned();
        record.processes = vec![DeviceProcess {
            name,
            identity: gone.clone(),
        }];
    });
    let name = "share of the user's files".to_owned();
    assert_eq!(
        device.end_reason,
        Some(EndReason::DeviceProcessEnded { name })
    );
    let stored = view(&|record| {
        record.keeper = Some(gone.clone());
        record.end_reason = Some(EndReason::TimedOut);
    });
    assert_eq!(stored.end_reason, Some(EndReason::TimedOut));
}

#[test]
fn a_container_that_ran_is_lost_with_its_sandbox() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    let mut record = dir.read().unwrap();
    (record.state, record.keeper) = (SandboxState::Running, Some(Process::ended()));
    for (name, state, exit) in [
        ("ran", ContainerState::Running, None),
        ("waited", ContainerState::Ready, None),
        ("ended", ContainerState::Stopped, Some(ExitStatus::Code(3))),
    ] {
        let mut container = ContainerRecord::new(vec!["true".into()]);
        (container.state, container.exit) = (state, exit);
        record.containers.insert(name.parse().unwrap(), container);
    }
    let view = View::of(&record);
    let exits: Vec<_> = view
        .containers
        .values()
        .map(|container| &container.exit)
        .collect();
    let lost = ExitStatus::Lost {
        reason: EndReason::KeeperEnded,
    };
    assert_eq!(exits, [&Some(ExitStatus::Code(3)), &Some(lost), &None]);
    assert!(
        view.containers
            .values()
            .all(|c| c.state == ContainerState::Stopped)
    );
}

#[test]
fn a_state_of_another_boot_is_stopped_by_reboot() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    dir.update(|record| (record.state, record.keeper) = (SandboxState::Running, me()))
        .unwrap();
    edit(&dir, |value| {
        value["boot_id"] = "of-yesterday".into();
        value["keeper"]["boot_id"] = "of-yesterday".into();
    });
    let view = View::of(&dir.read().unwrap());
    assert_eq!(view.status(), "stopped by reboot");
    assert!(matches!(
        &store.stale().unwrap()[..],
        [Stale::Sandbox {
            reason: StaleReason::Rebooted,
            ..
        }]
    ));
}

#[test]
fn an_interrupted_operation_is_shown_and_found() {
    let (_root, store) = store();
    let creation = store.create(record("made"), Verb::Run).unwrap();
    creation
        .update(|record| {
            let container = ContainerRecord::new(vec!["true".into()]);
            record.containers.insert("c1".parse().unwrap(), container);
        })
        .unwrap();
    let view = View::of(&creation.sandbox().read().unwrap());
    assert_eq!(view.status(), "creating");
    let container = &view.containers[&"c1".parse().unwrap()];
    assert!(container.creating && container.state == ContainerState::Ready);
    let dir = sandbox(&store, "a");
    operation_of(&dir, &Process::ended());
    let view = View::of(&dir.read().unwrap());
    assert_eq!(view.status(), "start interrupted");
    let step = "launch".to_owned();
    assert_eq!(
        view.activity,
        Some(Activity::Interrupted {
            verb: Verb::Start,
            step
        })
    );
    let stale = store.stale().unwrap();
    let [Stale::Sandbox { record, reason }] = &stale[..] else {
        panic!("{stale:?}")
    };
    let step = "launch".to_owned();
    assert_eq!(
        *reason,
        StaleReason::Interrupted {
            verb: Verb::Start,
            step
        }
    );
    assert_eq!(record.id(), dir.id());
}

#[test]
fn a_throw_away_vm_without_a_keeper_is_stale_unless_it_is_kept() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    assert!(store.stale().unwrap().is_empty());
    dir.update(|record| record.throwaway = true).unwrap();
    assert!(matches!(
        &store.stale().unwrap()[..],
        [Stale::Sandbox {
            reason: StaleReason::Ended,
            ..
        }]
    ));
    dir.update(|record| record.keeper = Some(Process::ended()))
        .unwrap();
    assert!(matches!(
        &store.stale().unwrap()[..],
        [Stale::Sandbox {
            reason: StaleReason::KeeperEnded,
            ..
        }]
    ));
    dir.update(|record| record.keep = true).unwrap();
    assert!(store.stale().unwrap().is_empty());
}

#[test]
fn who_cannot_be_judged_is_taken_for_alive() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    dir.update(|record| {
        record.state = SandboxState::Running;
        record.keeper = Some(Process::ended());
        record.vmm_process = Some(Process::ended());
    })
    .unwrap();
    edit(&dir, |value| {
        for process in ["keeper", "vmm_process"] {
            value[process]["pid_namespace"] = 1.into();
        }
    });
    assert_eq!(View::of(&dir.read().unwrap()).status(), "running");
    assert!(store.stale().unwrap().is_empty());
    assert!(dir.begin_gc().unwrap().is_none());

    operation_of(&dir, &Process::ended());
    edit(&dir, |value| {
        value["operation"]["owner"]["pid_namespace"] = 1.into()
    });
    let view = View::of(&dir.read().unwrap());
    assert!(matches!(view.activity, Some(Activity::Running { .. })));
    let refused = dir.begin_operation(Verb::Delete, WhenBusy::Refuse);
    assert!(matches!(refused, Err(Error::Busy { .. })));
    // It can be told that its operation is over, though not by a signal.
    let operation = dir.take_over(Verb::Delete).unwrap();
    assert!(operation.interrupted().unwrap().cancelled);
}

#[test]
fn gc_begins_only_where_nobody_looks_after_the_sandbox() {
    let (_root, store) = store();
    let dir = sandbox(&store, "a");
    dir.update(|record| record.keeper = me()).unwrap();
    let before = snapshot(dir.path());
    assert!(dir.begin_gc().unwrap().is_none());
    assert_eq!(snapshot(dir.path()), before);

    dir.update(|record| record.keeper = Some(Process::ended()))
        .unwrap();
    let (operation, reason) = dir.begin_gc().unwrap().unwrap();
    assert_eq!(reason, StaleReason::KeeperEnded);
    assert!(dir.begin_gc().unwrap().is_none());
    store.remove_by(operation).unwrap();
    sandbox(&store, "a");
    assert!(matches!(dir.begin_gc(), Err(Error::NotFound { .. })));
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn what_was_half_made_or_half_removed_is_found_unless_somebody_is_at_it() {
    let (_root, store) = store();
    sandbox(&store, "a");
    let dir = |name: &str| {
        let path = store.root().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    dir(".removing:x:1");
    let with_lock = |name: &str| {
        let path = dir(name);
        fs::write(path.join("lock"), "").unwrap();
        path
    };
    let old = |path: &Path| {
        let time = SystemTime::now() - Duration::from_secs(60);
        fs::File::open(path).unwrap().set_modified(time).unwrap();
    };
    dir(".creating:just-now:1");
    // Its maker has opened the lock, and does not hold it yet.
    with_lock(".creating:not-yet-locked:1");
    old(&with_lock(".creating:crashed:1"));
    old(&dir(".creating:crashed-early:1"));
    let busy = with_lock(".creating:busy:1");
    let lock = fs::File::open(busy.join("lock")).unwrap();
    lock.lock().unwrap();
    old(&busy);

    for name in [".creating:not-yet-locked:1", ".creating:busy:1"] {
        store.remove_leftover(name).unwrap();
        assert!(store.root().join(name).exists());
    }
    let mut names = Vec::new();
    for stale in store.stale().unwrap() {
        let Stale::Leftover { name } = stale else {
            panic!("{stale:?}")
        };
        store.remove_leftover(&name).unwrap();
        names.push(name);
    }
    names.sort();
    assert_eq!(
        names,
        [
            ".creating:crashed-early:1",
            ".creating:crashed:1",
            ".removing:x:1"
        ]
    );
    store.remove_leftover("a").unwrap();
    store.remove_leftover(".removing:/../a").unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(store.stale().unwrap().is_empty());
}
