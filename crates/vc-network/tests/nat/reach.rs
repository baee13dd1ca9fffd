//! What a machine reaches, and who reaches it.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;

use vc_network::{Attachment, Endpoint, InterworkingModel, Protocol, Scan};

use crate::common::{assert_same, need_root};
use crate::setting::{
    CYCLES, HOST, LIMIT, SILENCE, Setting, WORLD, connect, everybody, exchange, id, inside,
    listener, port, run, udp, udp_arrives,
};

#[test]
fn a_lease_reaches_the_world_and_leaves_the_host_as_it_was() {
    need_root!();
    let setting = Setting::new();
    let nat = setting.nat();
    let before = setting.snapshot();
    for cycle in 0..CYCLES {
        let lease = nat.lease(&id("web"), &[], everybody).unwrap();
        assert_eq!(lease.address(), Ipv4Addr::new(10, 89, 199, 2));
        assert_eq!(setting.forwarding(), "1");
        let (machine, world) = (inside(&lease), setting.world.open());

        let scan = Scan::of(&machine).unwrap();
        assert_eq!((scan.links.len(), scan.routes.len()), (1, 1));
        assert_eq!(scan.links[0].name.as_str(), "eth0");
        assert_eq!(scan.routes[0].gateway, Some(lease.gateway().into()));
        // It is attached as every other one.
        let endpoint = Endpoint::new(scan.links[0].clone()).unwrap();
        let model = InterworkingModel::Tcfilter;
        let plan = Attachment::plan(&machine, &endpoint, model, 1).unwrap();
        let attached = plan.attach(&machine).unwrap();
        attached.undo.undo(&machine).unwrap();

        let server = listener(&world, WORLD, 80);
        let from = exchange(&machine, &server, WORLD, 80);
        assert_eq!(from.ip(), HOST);
        // Nobody reaches the machine unasked.
        let socket = udp(&machine, lease.address(), 9);
        assert!(!udp_arrives(&world, &socket, lease.address(), 9, SILENCE));
        assert!(udp_arrives(
            &setting.host.open(),
            &socket,
            lease.address(),
            9,
            LIMIT
        ));

        drop((machine, socket));
        nat.release(&id("web")).unwrap();
        nat.release(&id("web")).unwrap();
        assert_same(&setting.snapshot(), &before, &format!("cycle {cycle}"));
        assert!(!lease.namespace().exists());
    }
}

#[test]
fn published_ports_lead_to_the_machine_from_where_they_are_published() {
    need_root!();
    let setting = Setting::new();
    let nat = setting.nat();
    let loopback = Ipv4Addr::LOCALHOST;
    let ports = [
        port(Protocol::Tcp, loopback, 8080, 80),
        port(Protocol::Tcp, Ipv4Addr::UNSPECIFIED, 8081, 80),
        port(Protocol::Tcp, HOST, 8082, 80),
        port(Protocol::Udp, loopback, 8080, 80),
    ];
    let lease = nat.lease(&id("web"), &ports, everybody).unwrap();
    let (machine, host, world) = (inside(&lease), setting.host.open(), setting.world.open());
    let server = listener(&machine, Ipv4Addr::UNSPECIFIED, 80);
    for (from, address, number, seen) in [
        (&host, loopback, 8080, lease.gateway()),
        (&host, loopback, 8081, lease.gateway()),
        (&host, HOST, 8081, HOST),
        (&host, HOST, 8082, HOST),
        (&world, HOST, 8081, WORLD),
        (&world, HOST, 8082, WORLD),
    ] {
        let from = exchange(from, &server, address, number);
        assert_eq!(from.ip(), seen, "{address}:{number}");
    }
    let error = connect(&world, HOST, 8080).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let server = udp(&machine, Ipv4Addr::UNSPECIFIED, 80);
    assert!(udp_arrives(&host, &server, loopback, 8080, LIMIT));

    // Nobody else gets them meanwhile.
    let bind = || TcpListener::bind((loopback, 8080));
    let error = host.run(bind).unwrap_err();
    assert!(format!("{error:?}").contains("AddrInUse"), "{error:?}");
    for taken in [ports[0], port(Protocol::Tcp, HOST, 8081, 81)] {
        let error = nat.lease(&id("other"), &[taken], everybody).unwrap_err();
        assert!(error.to_string().ends_with("by the sandbox web"), "{error}");
    }
    drop((lease, machine));
    nat.release(&id("web")).unwrap();
    host.run(bind).unwrap();
}

#[test]
fn machines_do_not_reach_each_other_and_the_last_one_takes_all_along() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let nat = setting.nat();
    let one = nat.lease(&id("one"), &[], everybody).unwrap();
    let during = setting.snapshot();
    let two = nat.lease(&id("two"), &[], everybody).unwrap();
    assert_ne!(one.address(), two.address());
    let socket = udp(&inside(&two), two.address(), 9);
    assert!(udp_arrives(
        &setting.host.open(),
        &socket,
        two.address(),
        9,
        LIMIT
    ));
    assert!(!udp_arrives(
        &inside(&one),
        &socket,
        two.address(),
        9,
        SILENCE
    ));
    // Nor by way of the host.
    let (host, far) = (one.gateway(), two.address());
    let name = one.namespace().to_str().unwrap().to_owned();
    let route = format!("ip route add {far}/32 via {host}");
    let words: Vec<_> = route.split_whitespace().collect();
    let added = inside(&one).run(|| Command::new(words[0]).args(&words[1..]).status());
    assert!(added.unwrap().success(), "{name}");
    assert!(!udp_arrives(
        &inside(&one),
        &socket,
        two.address(),
        9,
        SILENCE
    ));

    drop(socket);
    nat.release(&id("two")).unwrap();
    assert_same(&setting.snapshot(), &during, "after it");
    // What is free is given again.
    let three = nat.lease(&id("three"), &[], everybody).unwrap();
    assert_eq!(three.address(), two.address());
    nat.release(&id("one")).unwrap();
    nat.release(&id("three")).unwrap();
    assert_same(&setting.snapshot(), &before, "after it");
}

#[test]
fn a_machine_with_the_addresses_of_another_one_gets_nothing_of_its() {
    need_root!();
    let setting = Setting::new();
    let nat = setting.nat();
    let (good, evil) = (
        nat.lease(&id("good"), &[], everybody).unwrap(),
        nat.lease(&id("evil"), &[], everybody).unwrap(),
    );
    let (host, machine) = (setting.host.open(), inside(&evil));
    let mac = Scan::of(&inside(&good)).unwrap().links[0].mac.unwrap();
    for command in [
        "ip link set eth0 down".to_owned(),
        format!("ip link set eth0 address {mac}"),
        "ip link set eth0 up".to_owned(),
        format!("ip addr add {}/24 dev eth0", good.address()),
        "ip route add default via 10.89.199.1".to_owned(),
    ] {
        run(&machine, &command);
    }
    let victim = udp(&inside(&good), good.address(), 9);
    let thief = udp(&machine, good.address(), 9);
    // It says to everybody that the addresses are here.
    let shout = machine
        .run(|| UdpSocket::bind((good.address(), 0)))
        .unwrap();
    for _ in 0..10 {
        shout.send_to(b"x", (WORLD, 9)).unwrap();
    }
    assert!(udp_arrives(&host, &victim, good.address(), 9, LIMIT));
    thief.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(thief.recv_from(&mut [0; 8]).is_err());
}

#[test]
fn a_machine_does_not_reach_the_hosts_loopback_address() {
    need_root!();
    let setting = Setting::new();
    let nat = setting.nat();
    let published = port(Protocol::Tcp, Ipv4Addr::LOCALHOST, 8080, 80);
    let lease = nat.lease(&id("web"), &[published], everybody).unwrap();
    let socket = udp(&setting.host.open(), Ipv4Addr::LOCALHOST, 99);
    // A hostile machine has no loopback interface in the way.
    let machine = inside(&lease);
    for command in [
        "ip link set lo down",
        "ip route flush table local dev lo",
        "ip route add 127.0.0.1/32 via 10.89.199.1",
    ] {
        let words: Vec<_> = command.split_whitespace().collect();
        let run = || Command::new(words[0]).args(&words[1..]).status();
        machine.run(run).unwrap();
    }
    let switch = "/proc/sys/net/ipv4/conf/all/route_localnet";
    machine.run(|| std::fs::write(switch, "1")).unwrap();
    assert!(!udp_arrives(
        &machine,
        &socket,
        Ipv4Addr::LOCALHOST,
        99,
        SILENCE
    ));
    // It is the rule that keeps it out.
    setting
        .host
        .nft("flush chain ip virtcontainers-virtc0 guard");
    assert!(udp_arrives(
        &machine,
        &socket,
        Ipv4Addr::LOCALHOST,
        99,
        LIMIT
    ));
}
