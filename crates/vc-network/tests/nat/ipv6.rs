//! The same by IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vc_network::{Error, NatConfig, Protocol, Scan};

use crate::common::{assert_same, need_root};
use crate::setting::{
    CYCLES, HOST6, LIMIT, SILENCE, Setting, WORLD6, connect, everybody, exchange, id, inside,
    listener, port, run, udp, udp_arrives,
};

#[test]
fn with_ipv6_a_machine_reaches_the_world_by_it_and_leaves_the_host_as_it_was() {
    need_root!();
    let setting = Setting::with_ipv6();
    // A link that forwards although the host does not.
    setting.write("lo/forwarding", "1");
    let nat = setting.nat();
    let before = setting.snapshot6();
    for cycle in 0..CYCLES {
        let lease = nat.lease(&id("web"), &[], everybody).unwrap();
        let address = lease.address_ipv6().unwrap();
        assert_eq!(address.to_string(), "fd76:6331:c7::2");
        assert_eq!(setting.read("all/forwarding"), "1");
        let (machine, world) = (inside(&lease), setting.world.open());
        let scan = Scan::of(&machine).unwrap();
        let gateways: Vec<_> = scan.routes.iter().map(|route| route.gateway).collect();
        let gateway: IpAddr = "fd76:6331:c7::1".parse().unwrap();
        assert_eq!(gateways, [Some(lease.gateway().into()), Some(gateway)]);
        assert_eq!(scan.neighbours[0].address, gateway);

        let server = listener(&world, WORLD6, 80);
        let from = exchange(&machine, &server, WORLD6, 80);
        assert_eq!(from.ip(), HOST6);
        // Nobody reaches the machine unasked, but for the host.
        let socket = udp(&machine, address, 9);
        assert!(!udp_arrives(&world, &socket, address, 9, SILENCE));
        assert!(udp_arrives(
            &setting.host.open(),
            &socket,
            address,
            9,
            LIMIT
        ));
        drop((machine, socket));
        nat.release(&id("web")).unwrap();
        assert_same(&setting.snapshot6(), &before, &format!("cycle {cycle}"));
    }
}

#[test]
fn ports_of_ipv6_lead_to_the_machine_also_those_of_the_loopback_address() {
    need_root!();
    let setting = Setting::with_ipv6();
    let before = setting.snapshot6();
    let nat = setting.nat();
    let loopback = Ipv6Addr::LOCALHOST;
    let ports = [
        port(Protocol::Tcp, loopback, 8080, 80),
        port(Protocol::Tcp, loopback, 8083, 80),
        port(Protocol::Tcp, Ipv6Addr::UNSPECIFIED, 8081, 80),
        port(Protocol::Tcp, HOST6, 8082, 80),
        port(Protocol::Udp, loopback, 8080, 80),
        port(Protocol::Udp, HOST6, 8080, 80),
        // The other family's is another one.
        port(Protocol::Tcp, Ipv4Addr::UNSPECIFIED, 8081, 80),
    ];
    let lease = nat.lease(&id("web"), &ports, everybody).unwrap();
    let (machine, host, world) = (inside(&lease), setting.host.open(), setting.world.open());
    let server = listener(&machine, Ipv6Addr::UNSPECIFIED, 80);
    let stand_in: Ipv6Addr = "fd76:6331:c7::100:0".parse().unwrap();
    for (from, address, number, seen) in [
        (&host, loopback, 8080, stand_in),
        (&host, loopback, 8083, stand_in),
        (&host, loopback, 8081, stand_in),
        (&host, HOST6, 8081, HOST6),
        (&host, HOST6, 8082, HOST6),
        (&world, HOST6, 8081, WORLD6),
        (&world, HOST6, 8082, WORLD6),
    ] {
        let from = exchange(from, &server, address, number);
        assert_eq!(from.ip(), seen, "{address}:{number}");
    }
    assert!(connect(&world, HOST6, 8080).is_err());
    let server = udp(&machine, Ipv6Addr::UNSPECIFIED, 80);
    for (from, address) in [(&host, loopback), (&host, HOST6), (&world, HOST6)] {
        assert!(
            udp_arrives(from, &server, address, 8080, LIMIT),
            "{address}"
        );
    }
    drop((lease, machine));
    nat.release(&id("web")).unwrap();
    assert_same(&setting.snapshot6(), &before, "after it");
}

#[test]
fn machines_with_ipv6_reach_neither_each_other_nor_the_hosts_loopback_address() {
    need_root!();
    let setting = Setting::with_ipv6();
    let nat = setting.nat();
    let published = port(Protocol::Tcp, Ipv6Addr::LOCALHOST, 8080, 80);
    let one = nat.lease(&id("one"), &[published], everybody).unwrap();
    let two = nat.lease(&id("two"), &[], everybody).unwrap();
    let far = two.address_ipv6().unwrap();
    let socket = udp(&inside(&two), far, 9);
    assert!(udp_arrives(&setting.host.open(), &socket, far, 9, LIMIT));
    assert!(!udp_arrives(&inside(&one), &socket, far, 9, SILENCE));
    run(
        &inside(&one),
        &format!("ip -6 route add {far}/128 via fd76:6331:c7::1"),
    );
    assert!(!udp_arrives(&inside(&one), &socket, far, 9, SILENCE));

    let own = udp(&setting.host.open(), Ipv6Addr::LOCALHOST, 99);
    run(
        &inside(&one),
        "ip -6 route del local ::1 dev lo table local",
    );
    run(
        &inside(&one),
        "ip -6 route add ::1/128 via fd76:6331:c7::1 dev eth0",
    );
    let loopback = Ipv6Addr::LOCALHOST;
    assert!(!udp_arrives(&inside(&one), &own, loopback, 99, SILENCE));

    // What seems to come from the host itself.
    let served = udp(&setting.host.open(), HOST6, 98);
    assert!(udp_arrives(&inside(&one), &served, HOST6, 98, LIMIT));
    let gateway = "02:76:0a:59:c7:01";
    run(
        &inside(&one),
        &format!("ip neigh add {HOST6} lladdr {gateway} dev eth0"),
    );
    for (from, arrives) in [("::1", false), ("::2:0", true), ("::100:0", false)] {
        let from = format!("fd76:6331:c7{from}");
        run(
            &inside(&one),
            &format!("ip -6 addr add {from}/128 dev eth0 nodad"),
        );
        run(
            &inside(&one),
            &format!("ip -6 route replace {HOST6}/128 dev eth0 src {from}"),
        );
        let limit = if arrives { LIMIT } else { SILENCE };
        let arrived = udp_arrives(&inside(&one), &served, HOST6, 98, limit);
        assert_eq!(arrived, arrives, "{from}");
    }
}

#[test]
fn without_a_way_there_is_no_ipv6_and_its_ports_are_refused() {
    need_root!();
    let no_route: fn(&Setting) = |setting| drop(setting.host.ip("-6 route del default"));
    // The kernel has its default route from a router, and would forget it.
    let from_router: fn(&Setting) = |setting| {
        setting.host.ip("-6 route del default");
        let route = format!("-6 route add default via {WORLD6} proto ra");
        setting.host.ip(&route);
        setting.write("up0/accept_ra", "1");
    };
    // Whoever has set it may have its addresses from one.
    let listens: fn(&Setting) = |setting| setting.write("up0/accept_ra", "1");
    let taken: fn(&Setting) = |setting| {
        let route = format!("-6 route add fd76:6331::/32 via {WORLD6}");
        setting.host.ip(&route);
    };
    for (without, reason) in [
        (no_route, "no default route"),
        (from_router, "accept_ra"),
        (listens, "accept_ra"),
        (taken, "the route to fd76:6331::/32"),
    ] {
        let setting = Setting::with_ipv6();
        without(&setting);
        let before = setting.snapshot6();
        let nat = setting.nat();
        let published = port(Protocol::Tcp, Ipv6Addr::LOCALHOST, 8080, 80);
        let error = nat.lease(&id("web"), &[published], everybody).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("[::1]:8080/tcp") && said.contains(reason),
            "{said}"
        );
        assert_same(&setting.snapshot6(), &before, "after it");
        let lease = nat.lease(&id("web"), &[], everybody).unwrap();
        assert_eq!(lease.address_ipv6(), None);
        assert_eq!(setting.read("all/forwarding"), "0");
        nat.release(&id("web")).unwrap();
        assert_same(&setting.snapshot6(), &before, "after it");
    }
    // Where the kernel does not listen to routers, it forgets nothing.
    let setting = Setting::with_ipv6();
    from_router(&setting);
    setting.write("up0/accept_ra", "2");
    let lease = setting.nat().lease(&id("web"), &[], everybody).unwrap();
    assert!(lease.address_ipv6().is_some());
}

#[test]
fn a_table_that_drops_forwarded_ipv6_is_named() {
    need_root!();
    let setting = Setting::with_ipv6();
    setting.host.nft("add table ip6 engine");
    setting.host.nft(
        "add chain ip6 engine FORWARD { type filter hook forward priority 0 ; policy drop ; }",
    );
    let lease = setting.nat().lease(&id("web"), &[], everybody).unwrap();
    assert_eq!(lease.dropped_by(), ["ip6 engine"]);
}

#[test]
fn leases_of_an_older_version_are_shared_and_of_another_subnet_are_not() {
    need_root!();
    let config = |subnet: &str| {
        let config = NatConfig::default();
        let without = NatConfig::new(config.bridge().clone(), config.subnet()).unwrap();
        without.with_ipv6(subnet.parse().unwrap()).unwrap()
    };
    let setting = Setting::with_ipv6();
    let before = setting.snapshot6();
    let file = setting.directory.path().join("leases.json");
    let nat = setting.nat_with(config("fd12:3456:789a::/64"));
    nat.lease(&id("old"), &[], everybody).unwrap();
    let error = setting.nat().lease(&id("new"), &[], everybody).unwrap_err();
    assert!(matches!(error, Error::OtherNat { .. }), "{error}");
    nat.release(&id("old")).unwrap();

    setting.host.ip("-6 route del default");
    nat.lease(&id("old"), &[], everybody).unwrap();
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    state.as_object_mut().unwrap().remove("ipv6").unwrap();
    let written = state["config"].as_object_mut().unwrap();
    written.remove("subnet6").unwrap();
    std::fs::write(&file, state.to_string()).unwrap();
    let lease = setting.nat().lease(&id("new"), &[], everybody).unwrap();
    assert_eq!(lease.address(), Ipv4Addr::new(10, 89, 199, 3));
    assert_eq!(lease.address_ipv6(), None);
    for owner in ["old", "new"] {
        setting.nat().release(&id(owner)).unwrap();
    }
    let back = format!("-6 route add default via {WORLD6}");
    setting.host.ip(&back);
    assert_same(&setting.snapshot6(), &before, "after it");
}
