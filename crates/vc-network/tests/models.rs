//! The interworking model macvtap, and what each model cannot do.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use std::process::Command;

use common::guest::{Guest, assert_guest_is_reached, assert_pod_is_reached};
use common::{Pod, TestNamespace, need_root, pod};
use vc_network::{Attachment, Error, InterworkingModel, Undo};
use vc_types::Hint;

const CYCLES: usize = 20;

/// Ends the calling test where the kernel has no macvtap, and says so.
macro_rules! need_macvtap {
    ($pod:expr) => {
        let name = $pod.inside.name();
        let made = Command::new("ip")
            .args(["-n", name, "link", "add", "probe", "link", "eth0"])
            .args(["type", "macvtap", "mode", "passthru"])
            .output()
            .unwrap();
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            assert!(said.contains("Unknown device type"), "{said}");
            println!("skipped: the kernel has no macvtap");
            return;
        }
        $pod.inside.ip("link del probe");
    };
}

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

#[test]
fn a_macvtap_takes_the_frames_of_its_link_and_gives_them_back() {
    need_root!();
    let pod = pod();
    need_macvtap!(pod);
    let namespace = pod.inside.open();
    let endpoint = pod.inside.endpoint("eth0");
    let before = pod.inside.snapshot();
    for cycle in 0..CYCLES {
        let attachment = plan(&pod.inside, InterworkingModel::Macvtap, 1);
        let undo = stored(attachment.undo());
        let attached = attachment.attach(&namespace).unwrap();
        let shown = pod.inside.ip(&format!("link show {}", attached.tap.name()));
        assert!(
            shown.contains("mtu 1400") && shown.contains("02:00:00:00:00:0a"),
            "{shown}"
        );
        assert_eq!(pod.inside.scan().links, [endpoint.link().clone()]);
        if cycle == 0 {
            let tap = attached.tap.into_queues().remove(0);
            let mut guest = Guest::new(tap, endpoint.mac().octets());
            assert_guest_is_reached(&pod, &mut guest);
        }
        for _ in 0..2 {
            undo.undo_at(pod.inside.path()).unwrap();
            assert_eq!(pod.inside.snapshot(), before, "cycle {cycle}");
        }
    }
    assert_pod_is_reached(&pod);
}

#[test]
fn a_macvtap_has_the_queues_that_it_was_asked_for() {
    need_root!();
    let pod = pod();
    need_macvtap!(pod);
    let before = pod.inside.snapshot();
    let namespace = pod.inside.open();
    let attached = plan(&pod.inside, InterworkingModel::Macvtap, 4).attach(&namespace);
    let attached = attached.unwrap();
    assert_eq!(attached.tap.queues().len(), 4);
    attached.undo.undo(&namespace).unwrap();
    assert_eq!(pod.inside.snapshot(), before);
}

#[test]
fn a_macvtap_that_cannot_be_made_leaves_nothing() {
    need_root!();
    let pod = pod();
    need_macvtap!(pod);
    // A macvlan has the link's frames already.
    let attachment = plan(&pod.inside, InterworkingModel::Macvtap, 1);
    pod.inside
        .ip("link add link eth0 name mv0 type macvlan mode bridge");
    let before = pod.inside.snapshot();
    let error = attachment.attach(&pod.inside.open()).unwrap_err();
    assert!(
        error.to_string().contains("make the macvtap vctap"),
        "{error}"
    );
    assert_eq!(pod.inside.snapshot(), before);
    // And what has its name is another's.
    pod.inside.ip("link del mv0");
    let index = pod.inside.endpoint("eth0").link().index;
    pod.inside
        .ip(&format!("tuntap add mode tap name vctap{index}"));
    let error = refused(&pod.inside, InterworkingModel::Macvtap, 1);
    assert!(matches!(error, Error::InTheWay { .. }), "{error}");
}

#[test]
fn models_that_cannot_be_are_refused_by_name_with_one_that_can() {
    need_root!();
    let tap = TestNamespace::new();
    tap.ip("tuntap add mode tap name eth0");
    tap.ip("addr add 10.9.0.1/24 dev eth0");
    for model in [InterworkingModel::Tcfilter, InterworkingModel::Macvtap] {
        let error = refused(&tap, model, 1);
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(&model.to_string()), "{error}");
        assert!(error.hint().unwrap().contains("model none"));
    }
    let Pod { inside, outside } = pod();
    let error = refused(&inside, InterworkingModel::None, 1);
    assert!(error.hint().unwrap().contains("model tcfilter"));
    let name = inside.name();
    inside.ip("link del eth0");
    outside.ip("link add peer1 type veth peer name peer2");
    outside.ip(&format!(
        "link add link peer1 name m0 netns {name} type macvlan mode bridge"
    ));
    inside.ip("link set m0 name eth0");
    inside.ip("addr add 10.9.0.2/24 dev eth0");
    let error = refused(&inside, InterworkingModel::Macvtap, 1);
    assert!(
        error
            .to_string()
            .contains("macvtap is not supported for the link eth0"),
        "{error}"
    );
}
