//! The interworking model none: the machine opens a tap that is there.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use std::sync::{Mutex, PoisonError};

use common::guest::{Guest, assert_guest_is_reached_from};
use common::{TestNamespace, need_root};
use vc_network::{Attachment, Error, InterworkingModel, Namespace, Undo};

/// Whatever another test starts has all descriptors for a moment, also those of a tap that is closed.
static ALONE: Mutex<()> = Mutex::new(());

fn plan(namespace: &TestNamespace, model: InterworkingModel, queues: u16) -> Attachment {
    let endpoint = namespace.endpoint("eth0");
    Attachment::plan(&namespace.open(), &endpoint, model, queues).unwrap()
}

fn refused(namespace: &TestNamespace, model: InterworkingModel, queues: u16) -> Error {
    let endpoint = namespace.endpoint("eth0");
    Attachment::plan(&namespace.open(), &endpoint, model, queues).unwrap_err()
}

fn stored(undo: &Undo) -> Undo {
    serde_json::from_str(&serde_json::to_string(undo).unwrap()).unwrap()
}

/// A namespace with a tap `eth0`, made with these words too, behind which a machine is expected.
fn with_tap(words: &str) -> TestNamespace {
    let test = TestNamespace::new();
    test.ip(&format!("tuntap add mode tap name eth0 {words}"));
    test.ip("link set eth0 addrgenmode none");
    test.ip("link set eth0 up");
    test.ip("addr add 10.9.0.1/24 dev eth0");
    test
}

/// A snapshot without what the kernel does a moment after a tap was opened or closed: its carrier, and
/// the route that comes with that.
fn without_carrier(test: &TestNamespace) -> String {
    let text = test
        .snapshot()
        .replace("NO-CARRIER,", "")
        .replace(",LOWER_UP", "");
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("multicast ff00::/8"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_tap_is_opened_by_the_machine_and_left_as_it_was() {
    need_root!();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (words, queues) in [
        ("", 1),
        ("vnet_hdr", 1),
        ("pi", 1),
        ("multi_queue", 1),
        ("multi_queue", 3),
    ] {
        let test = with_tap(words);
        let namespace: Namespace = test.open();
        let before = without_carrier(&test);
        let attachment = plan(&test, InterworkingModel::None, queues);
        let undo = stored(attachment.undo());
        undo.undo(&namespace).unwrap();
        let attached = attachment.attach(&namespace).unwrap();
        assert_eq!(attached.tap.name().as_str(), "eth0");
        assert_eq!(attached.tap.queues().len(), usize::from(queues));
        let mut descriptors = attached.tap.into_queues();
        if queues == 1 {
            let mut guest = Guest::new(descriptors.remove(0), [2, 0, 0, 0, 0, 9]);
            assert_guest_is_reached_from(&test, &mut guest);
        }
        drop(descriptors);
        for _ in 0..2 {
            undo.undo_at(test.path()).unwrap();
            assert_eq!(without_carrier(&test), before, "{words} {queues}");
        }
    }
}

#[test]
fn a_tap_that_others_have_open_or_that_has_one_queue_is_refused() {
    need_root!();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let test = with_tap("");
    let namespace = test.open();
    let endpoint = test.endpoint("eth0");
    assert_eq!(Attachment::queues_max(&namespace, &endpoint).unwrap(), 1);
    let error = refused(&test, InterworkingModel::None, 2);
    assert!(
        error.to_string().contains("made for a single one"),
        "{error}"
    );
    let first = plan(&test, InterworkingModel::None, 1);
    let second = plan(&test, InterworkingModel::None, 1);
    let attached = first.attach(&namespace).unwrap();
    let error = second.attach(&namespace).unwrap_err();
    assert!(error.to_string().contains("open the tap eth0"), "{error}");
    // While a machine has it open, it cannot be made what it was.
    let error = attached.undo.undo(&namespace).unwrap_err();
    assert!(
        error.to_string().contains("make as it was the tap eth0"),
        "{error}"
    );
    drop(attached.tap);
    attached.undo.undo(&namespace).unwrap();
}
