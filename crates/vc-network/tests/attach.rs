//! Attaching endpoints.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use common::guest::{Guest, assert_guest_is_reached, assert_pod_is_reached};
use common::{need_root, pod, wait_until};
use vc_network::{Attachment, Endpoint, Error, InterworkingModel, QUEUES_MAX};

/// How often an endpoint is attached and taken away again.
const CYCLES: usize = 20;

#[test]
fn frames_go_both_ways_and_afterwards_to_the_namespace_again() {
    need_root!();
    let pod = pod();
    assert_pod_is_reached(&pod);
    let endpoint = pod.inside.endpoint("eth0");
    let attached = pod.inside.plan().attach(&pod.inside.open()).unwrap();
    let undo = attached.undo.clone();
    let shown = pod.inside.ip(&format!("link show {}", attached.tap.name()));
    assert!(
        shown.contains("mtu 1400") && shown.contains(",UP"),
        "{shown}"
    );
    let tap = attached.tap.into_queues().remove(0);
    let mut guest = Guest::new(tap, endpoint.mac().octets());
    assert_guest_is_reached(&pod, &mut guest);

    undo.undo(&pod.inside.open()).unwrap();
    assert_pod_is_reached(&pod);
}

#[test]
fn a_macvlan_and_a_macvtap_are_attached_the_same_way() {
    need_root!();
    for kind in ["macvlan", "macvtap"] {
        let pod = pod();
        // What was eth0 is below it, and in the namespace of the host.
        pod.inside
            .ip(&format!("link set eth0 netns {}", pod.outside.name()));
        let outside = common::Pod {
            inside: common::TestNamespace::new(),
            outside: pod.outside,
        };
        outside.outside.ip("link set eth0 up");
        let name = outside.inside.name();
        outside.outside.ip(&format!(
            "link add link eth0 name m0 netns {name} type {kind} mode bridge"
        ));
        outside.inside.ip("link set m0 name eth0 addrgenmode none");
        outside.inside.ip("link set eth0 up");
        outside.inside.ip("addr add 10.9.0.2/24 dev eth0");
        let before = outside.inside.snapshot();
        let endpoint = outside.inside.endpoint("eth0");
        let namespace = outside.inside.open();
        let attached = outside.inside.plan().attach(&namespace).unwrap();
        let tap = attached.tap.into_queues().remove(0);
        let mut guest = Guest::new(tap, endpoint.mac().octets());
        assert_guest_is_reached(&outside, &mut guest);
        attached.undo.undo(&namespace).unwrap();
        assert_eq!(outside.inside.snapshot(), before, "{kind}");
    }
}

#[test]
fn many_cycles_leave_the_namespace_as_it_was() {
    need_root!();
    let pod = pod();
    pod.inside.ip("route add default via 10.9.0.1");
    pod.inside
        .ip("neigh add 10.9.0.77 lladdr 02:00:00:00:00:4d dev eth0 nud permanent");
    pod.inside.tc("qdisc add dev eth0 root pfifo limit 77");
    let namespace = pod.inside.open();
    let before = pod.inside.snapshot();
    for cycle in 0..CYCLES {
        let attached = pod.inside.plan().attach(&namespace).unwrap();
        let during = pod.inside.snapshot();
        assert!(during.contains("Redirect to device vctap"), "{during}");
        // The machine's end and the undoing come in either order.
        if cycle % 2 == 0 {
            drop(attached.tap);
            attached.undo.undo(&namespace).unwrap();
        } else {
            attached.undo.undo(&namespace).unwrap();
            drop(attached.tap);
        }
        assert_eq!(pod.inside.snapshot(), before, "cycle {cycle}");
    }
}

#[test]
fn a_tap_has_the_queues_that_it_was_asked_for_and_ends_with_the_last_of_them() {
    need_root!();
    let pod = pod();
    let (namespace, endpoint) = (pod.inside.open(), pod.inside.endpoint("eth0"));
    let model = InterworkingModel::Tcfilter;
    for queues in [0, QUEUES_MAX + 1] {
        let error = Attachment::plan(&namespace, &endpoint, model, queues).unwrap_err();
        assert!(error.to_string().contains("from 1 to 256"), "{error}");
    }
    let attachment = Attachment::plan(&namespace, &endpoint, model, 4).unwrap();
    let attached = attachment.attach(&namespace).unwrap();
    let name = attached.tap.name().to_string();
    let mut queues = attached.tap.into_queues();
    assert_eq!(queues.len(), 4);
    let shown = pod.inside.ip(&format!("-d link show {name}"));
    assert!(
        shown.contains("vnet_hdr on multi_queue numqueues 4"),
        "{shown}"
    );
    queues.truncate(1);
    pod.inside.ip(&format!("link show {name}"));
    queues.clear();
    // What another test starts has a copy of it for a moment.
    wait_until("the tap's end", || !pod.inside.ip("link").contains(&name));
    attached.undo.undo(&namespace).unwrap();
}

#[test]
fn what_others_have_set_up_is_refused_and_left_alone() {
    need_root!();
    for command in ["qdisc add dev eth0 ingress", "qdisc add dev eth0 clsact"] {
        let pod = pod();
        let (namespace, endpoint) = (pod.inside.open(), pod.inside.endpoint("eth0"));
        let plan = || Attachment::plan(&namespace, &endpoint, InterworkingModel::Tcfilter, 1);
        let early = plan().unwrap();
        pod.inside.tc(command);
        let before = pod.inside.snapshot();
        let error = plan().unwrap_err();
        assert!(matches!(error, Error::InTheWay { .. }), "{error}");
        // It came between plan and attachment.
        let error = early.attach(&namespace).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert_eq!(pod.inside.snapshot(), before);
    }

    let pod = pod();
    let (namespace, endpoint) = (pod.inside.open(), pod.inside.endpoint("eth0"));
    let plan = || Attachment::plan(&namespace, &endpoint, InterworkingModel::Tcfilter, 1);
    let early = plan().unwrap();
    let index = endpoint.link().index;
    pod.inside
        .ip(&format!("tuntap add mode tap name vctap{index}"));
    let before = pod.inside.snapshot();
    let error = plan().unwrap_err();
    assert!(
        error.to_string().contains(&format!("vctap{index}")),
        "{error}"
    );
    assert!(early.attach(&namespace).is_err());
    assert_eq!(pod.inside.snapshot(), before);
}

#[test]
fn a_link_that_vanished_or_is_another_one_is_an_error_and_nothing_stays() {
    need_root!();
    for replaced in [false, true] {
        let pod = pod();
        let (namespace, endpoint) = (pod.inside.open(), pod.inside.endpoint("eth0"));
        let plan = || Attachment::plan(&namespace, &endpoint, InterworkingModel::Tcfilter, 1);
        let early = plan().unwrap();
        pod.inside.ip("link del eth0");
        if replaced {
            let index = endpoint.link().index;
            pod.inside
                .ip(&format!("link add br0 index {index} type bridge"));
        }
        let before = pod.inside.snapshot();
        for error in [plan().unwrap_err(), early.attach(&namespace).unwrap_err()] {
            assert!(matches!(error, Error::LinkGone { .. }), "{error}");
            assert!(error.to_string().contains("eth0"), "{error}");
        }
        assert_eq!(pod.inside.snapshot(), before);
    }
}

#[test]
fn a_plan_is_for_one_namespace_alone() {
    need_root!();
    let (pod, other) = (pod(), pod());
    let before = other.inside.snapshot();
    let error = pod.inside.plan().attach(&other.inside.open()).unwrap_err();
    assert!(matches!(error, Error::LinkGone { .. }), "{error}");
    assert_eq!(other.inside.snapshot(), before);
}

#[test]
fn an_endpoint_reads_back_from_a_state_and_a_wrong_one_does_not() {
    need_root!();
    let pod = pod();
    let endpoint = pod.inside.endpoint("eth0");
    let text = serde_json::to_string(&endpoint).unwrap();
    assert_eq!(serde_json::from_str::<Endpoint>(&text).unwrap(), endpoint);
    for (from, to) in [
        ("\"eth0\"", "\"sixteen-bytes-xx\""),
        ("02:00:00:00:00:0a", "01:00:00:00:00:0a"),
        ("10.9.0.2/24", "10.9.0.2"),
        ("\"veth\"", "\"tun\""),
    ] {
        assert!(text.contains(from), "{text}");
        let wrong = text.replace(from, to);
        assert!(serde_json::from_str::<Endpoint>(&wrong).is_err(), "{wrong}");
    }
}
