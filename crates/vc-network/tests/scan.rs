//! What is found in namespaces.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use common::{TestNamespace, need_root, pod};
use vc_network::{Endpoint, EndpointKind, Error, LinkKind, RouteScope, Scan};
use vc_types::Hint;

#[test]
fn an_address_whose_network_nothing_leads_to_directly_is_told() {
    need_root!();
    let pod = pod();
    pod.inside.ip("route del 10.9.0.0/24 dev eth0");
    pod.inside.ip("route add 10.9.0.1 dev eth0 scope link");
    pod.inside.ip("route add 10.9.0.0/24 via 10.9.0.1");
    let told = |scan: &Scan| -> Vec<_> {
        let addresses = scan.links[0].addresses.iter();
        addresses.map(|one| one.without_route).collect()
    };
    let scan = pod.inside.scan();
    assert_eq!(told(&scan), [true, false]);
    // That it comes back is a change.
    pod.inside.ip("route del 10.9.0.0/24 via 10.9.0.1");
    pod.inside
        .ip("route add 10.9.0.0/24 dev eth0 proto kernel scope link");
    let newer = pod.inside.scan();
    assert_eq!(told(&newer), [false, false]);
    assert!(!scan.difference(&newer).is_empty());
}

#[test]
fn a_link_has_its_addresses_routes_and_neighbours() {
    need_root!();
    let pod = pod();
    for command in [
        "route add default via 10.9.0.1",
        "route add 10.20.0.0/16 via 10.9.0.9 mtu 1300 metric 7 src 10.9.0.2",
        "route add 192.0.2.1 dev eth0 scope link",
        "route add 10.30.0.0/16 via 172.31.0.1 dev eth0 onlink",
        "-6 route add default via fd09::1",
        "neigh add 10.9.0.77 lladdr 02:00:00:00:00:4d dev eth0 nud permanent",
        "neigh add 10.9.0.78 lladdr 02:00:00:00:00:4e dev eth0 nud stale",
        "neigh add fd09::77 lladdr 02:00:00:00:00:4d dev eth0 nud permanent router",
    ] {
        pod.inside.ip(command);
    }
    let scan = pod.inside.scan();

    let [link] = scan.links.as_slice() else {
        panic!("{:?}", scan.links);
    };
    assert_eq!((link.name.as_str(), &link.kind), ("eth0", &LinkKind::Veth));
    assert_eq!(link.mac.unwrap().to_string(), "02:00:00:00:00:0a");
    assert!(link.mtu == 1400 && link.up && !link.no_arp);
    let texts = |addresses: &[vc_network::LinkAddress]| -> Vec<_> {
        addresses.iter().map(|one| one.cidr.to_string()).collect()
    };
    assert_eq!(texts(&link.addresses), ["10.9.0.2/24", "fd09::2/64"]);
    assert_eq!(texts(&link.link_local), ["fe80::5/64"]);

    assert!(!link.addresses.iter().any(|one| one.without_route));

    let route = |destination: &str| {
        let mut found = scan.routes.iter();
        let found = found.find(|route| route.destination.to_string() == destination);
        found.unwrap().clone()
    };
    assert_eq!(scan.routes.len(), 5, "{:?}", scan.routes);
    assert!(scan.routes.iter().all(|route| route.link == link.index));
    // What needs no other route comes first, and what leads everywhere last.
    assert_eq!(scan.routes[0].destination.to_string(), "192.0.2.1/32");
    assert_eq!(scan.routes[0].scope, RouteScope::Link);
    assert_eq!(scan.routes[4].destination.prefix(), 0);
    assert_eq!(
        route("0.0.0.0/0").gateway,
        Some("10.9.0.1".parse().unwrap())
    );
    assert_eq!(route("::/0").gateway, Some("fd09::1".parse().unwrap()));
    let special = route("10.20.0.0/16");
    assert_eq!((special.mtu, special.metric), (Some(1300), Some(7)));
    assert_eq!(special.source, Some("10.9.0.2".parse().unwrap()));
    assert!(!special.on_link && route("10.30.0.0/16").on_link);

    let neighbours: Vec<_> = scan.neighbours.iter().collect();
    assert_eq!(neighbours.len(), 2, "{neighbours:?}");
    assert!(neighbours.iter().all(|one| one.mac.octets()[5] == 0x4d));
    assert_eq!(neighbours.iter().filter(|one| one.router).count(), 1);

    let text = serde_json::to_string(&scan).unwrap();
    assert_eq!(serde_json::from_str::<Scan>(&text).unwrap(), scan);
}

#[test]
fn what_does_not_reach_a_machine_is_named() {
    need_root!();
    let pod = pod();
    pod.inside.ip("link add br0 type bridge");
    pod.inside.ip("route add blackhole 10.66.0.0/16");
    pod.inside
        .ip("route add 10.67.0.0/16 via 10.9.0.1 table 100");
    pod.inside.ip("route add 10.68.0.0/16 dev lo");
    pod.inside
        .ip("route add 10.69.0.0/16 nexthop via 10.9.0.1 nexthop via 10.9.0.3");
    let scan = pod.inside.scan();
    assert_eq!((scan.links.len(), scan.routes.len()), (1, 0));
    let left_out: Vec<_> = scan
        .left_out
        .iter()
        .map(|one| format!("{}: {}", one.what, one.reason))
        .collect();
    for expected in [
        "the link br0: it has no address",
        "the route to 10.66.0.0/16: it leads to no neighbour",
        "the route to 10.67.0.0/16: it is not in the main table",
        "the route to 10.68.0.0/16: it leads by a link that is left out",
        "the route to 10.69.0.0/16: it leads by more than one link",
    ] {
        assert!(left_out.iter().any(|one| one == expected), "{left_out:#?}");
    }
    assert_eq!(left_out.len(), 5, "{left_out:#?}");
}

#[test]
fn links_come_in_the_order_of_their_indexes() {
    need_root!();
    let test = TestNamespace::new();
    for (index, name) in [(40, "aaa"), (20, "zzz"), (30, "mmm")] {
        test.ip(&format!("link add {name} index {index} type bridge"));
        test.ip(&format!("addr add 10.{index}.0.1/24 dev {name}"));
    }
    let links = test.scan().links;
    let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["zzz", "mmm", "aaa"]);
}

#[test]
fn an_address_of_a_point_to_point_connection_has_its_other_end() {
    need_root!();
    let pod = pod();
    pod.inside.ip("addr add 10.5.0.1 peer 10.5.0.2/32 dev eth0");
    let link = pod.inside.scan().links.remove(0);
    let found = link.addresses.iter().find(|one| one.peer.is_some());
    let found = found.unwrap();
    assert_eq!(found.cidr.to_string(), "10.5.0.1/32");
    assert_eq!(found.peer, Some("10.5.0.2".parse().unwrap()));
}

#[test]
fn two_links_with_one_mac_are_refused() {
    need_root!();
    let test = TestNamespace::new();
    for name in ["one", "two"] {
        test.ip(&format!(
            "link add {name} address 02:00:00:00:00:11 type bridge"
        ));
    }
    // A link that no machine gets is in nobody's way.
    test.ip("addr add 10.1.0.1/24 dev one");
    assert_eq!(test.scan().links.len(), 1);
    test.ip("addr add 10.2.0.1/24 dev two");
    let error = Scan::of(&test.open()).unwrap_err();
    assert!(matches!(error, Error::SameMac { .. }));
    assert_eq!(
        error.to_string(),
        "the links one and two have the same MAC address 02:00:00:00:00:11"
    );
    assert!(error.hint().unwrap().contains("dev two address"));
}

#[test]
fn kinds_are_known_and_what_cannot_be_an_endpoint_is_refused_by_name() {
    need_root!();
    let pod = pod();
    let inside = &pod.inside;
    inside.ip("link add mv0 link eth0 type macvlan mode bridge");
    inside.ip("link add mt0 link eth0 type macvtap mode bridge");
    inside.ip("link add br0 type bridge");
    inside.ip("tuntap add mode tun name tun0");
    inside.ip("tuntap add mode tap name tap0");
    for (number, name) in ["mv0", "mt0", "br0", "tun0", "tap0"].iter().enumerate() {
        inside.ip(&format!("addr add 10.{number}.0.1/24 dev {name}"));
    }
    for link in inside.scan().links {
        let name = link.name.to_string();
        let kind = link.kind.clone();
        let endpoint = Endpoint::new(link);
        let (expected, possible) = match name.as_str() {
            "eth0" => (LinkKind::Veth, Some(EndpointKind::Veth)),
            "mv0" => (LinkKind::Macvlan, Some(EndpointKind::Macvlan)),
            "mt0" => (LinkKind::Macvtap, Some(EndpointKind::Macvtap)),
            "tun0" => (LinkKind::Tun, None),
            "tap0" => (LinkKind::Tap, Some(EndpointKind::Tap)),
            _ => {
                let bridge = "bridge".to_owned();
                (
                    LinkKind::Other(bridge.clone()),
                    Some(EndpointKind::Other(bridge)),
                )
            }
        };
        assert_eq!(kind, expected);
        match endpoint {
            Ok(endpoint) => assert_eq!(Some(endpoint.kind()), possible.as_ref()),
            Err(error) => {
                assert!(possible.is_none() && matches!(error, Error::Impossible { .. }));
                let text = error.to_string();
                assert!(text.contains(&name) && text.contains(expected.as_str()));
            }
        }
    }
}
