//! What cannot be, what vanishes in the middle, and what is more than usual.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use common::{TestNamespace, need_root, pod};
use vc_network::{
    Attachment, BitRate, Endpoint, Error, InterworkingModel, RateLimits, Scan, Undo, Watch,
};

/// As many as a machine can be asked to have.
const LINKS: usize = 64;

#[test]
fn what_cannot_be_is_refused_where_it_comes_in() {
    // Each with what its error has to say.
    let refused = |what: Result<(), Error>, expected: &str| {
        let text = what.unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    };
    let cidr = |text: &str| text.parse::<vc_network::Cidr>().map(|_| ());
    refused(
        cidr("10.0.0.1"),
        "\"10.0.0.1\" is not valid: it has no mask",
    );
    let name = |text: &str| text.parse::<vc_network::InterfaceName>().map(|_| ());
    refused(name("sixteen-bytes-xx"), "it is longer than 15 bytes");
    refused(name("eth0 down"), "white space");
    let rate = |bits| BitRate::new(bits).map(|_| ());
    refused(rate(1), "rate limit \"1\" is not valid");
    let model = |text: &str| text.parse::<InterworkingModel>().map(|_| ());
    refused(model("bridged"), "tcfilter, macvtap or none is expected");
}

#[test]
fn as_many_links_as_a_machine_can_have_are_attached_and_left_as_they_were() {
    need_root!();
    let (inside, outside) = (TestNamespace::new(), TestNamespace::new());
    for number in 0..LINKS {
        let peer = format!("peer name p{number} netns {}", outside.name());
        inside.ip(&format!("link add e{number} type veth {peer}"));
        inside.ip(&format!("link set e{number} addrgenmode none"));
        inside.ip(&format!("addr add 10.7.{number}.1/24 dev e{number}"));
        inside.ip(&format!("link set e{number} up"));
    }
    let namespace = inside.open();
    let before = inside.snapshot();
    let rate = BitRate::new(8_000_000).unwrap();
    let limits = RateLimits {
        receive: Some(rate),
        send: Some(rate),
    };
    let links = inside.scan().links;
    assert_eq!(links.len(), LINKS);
    let attached: Vec<_> = links
        .into_iter()
        .map(|link| {
            let endpoint = Endpoint::new(link).unwrap();
            let model = InterworkingModel::Tcfilter;
            let plan = Attachment::plan(&namespace, &endpoint, model, 1).unwrap();
            plan.limit(&namespace, limits)
                .unwrap()
                .attach(&namespace)
                .unwrap()
        })
        .collect();
    // The taps are no more links of it.
    assert_eq!(inside.scan().links.len(), LINKS);
    for one in attached {
        one.undo.undo(&namespace).unwrap();
    }
    assert_eq!(inside.snapshot(), before);
}

#[test]
fn a_namespace_that_vanishes_in_the_middle_lives_until_it_is_let_go() {
    need_root!();
    let pod = pod();
    let path = pod.inside.path();
    let namespace = pod.inside.open();
    let plan = pod.inside.plan();
    let undo = plan.undo().clone();
    pod.inside.delete();
    // Who has it open goes on as if nothing was.
    let attached = plan.attach(&namespace).unwrap();
    assert_eq!(Scan::of(&namespace).unwrap().links.len(), 1);
    attached.undo.undo(&namespace).unwrap();
    // And whoever comes with the record finds that there is nothing left.
    undo.undo_at(&path).unwrap();
    let error = vc_network::Namespace::open(&path).unwrap_err();
    assert!(matches!(error, Error::NamespaceGone { .. }), "{error}");
}

#[test]
fn a_link_that_vanishes_in_the_middle_is_an_error_with_every_model() {
    need_root!();
    for (model, made) in [
        (InterworkingModel::Tcfilter, "link add gone0 type bridge"),
        (InterworkingModel::Macvtap, "link add gone0 type bridge"),
        (InterworkingModel::None, "tuntap add mode tap name gone0"),
    ] {
        let test = TestNamespace::new();
        let namespace = test.open();
        let empty = test.snapshot();
        test.ip(made);
        test.ip("addr add 10.9.0.2/24 dev gone0");
        let endpoint = test.endpoint("gone0");
        let plan = Attachment::plan(&namespace, &endpoint, model, 1).unwrap();
        let text = serde_json::to_string(plan.undo()).unwrap();
        let mut watch = Watch::on(&namespace).unwrap();
        test.ip("link del gone0");
        assert!(watch.has_changed().unwrap());
        let error = plan.attach(&namespace).unwrap_err();
        assert!(matches!(error, Error::LinkGone { .. }), "{model}: {error}");
        let undo: Undo = serde_json::from_str(&text).unwrap();
        undo.undo(&namespace).unwrap();
        assert_eq!(test.snapshot(), empty, "{model}");
    }
}

#[test]
fn links_of_one_mac_are_refused_before_anything_is_attached() {
    need_root!();
    let pod = pod();
    pod.inside.ip("link add twin type bridge");
    pod.inside.ip("link set twin address 02:00:00:00:00:0a");
    pod.inside.ip("addr add 10.8.0.1/24 dev twin");
    let error = Scan::of(&pod.inside.open()).unwrap_err();
    assert!(matches!(error, Error::SameMac { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("eth0") && text.contains("twin"), "{text}");
}
