//! The network of the kernel, in a namespace of each test's own.

use std::net::IpAddr;
use std::thread;

use agent_protocol::virtc::{
    ConfigureNetworkRequest, NetworkInterface, NetworkNeighbour, NetworkPrefix, NetworkRoute,
};
use agent_protocol::{agent, types};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use protobuf::MessageField;
use rustix::thread::UnshareFlags;

use super::mac::Mac;
use super::netlink::Netlink;
use super::*;
use crate::error::Error;

/// The two ends of a cable, as devices of a machine would be.
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// Runs a test on a thread in a network namespace of its own, with `eth0` and `eth1`.
fn in_a_namespace(test: impl FnOnce(&Network) + Send + 'static) {
    let thread = thread::spawn(move || {
        #[allow(
            unsafe_code,
            reason = "the thread shares nothing that depends on its network"
        )]
        // SAFETY: only the thread's network namespace changes, and it ends with the test.
        let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
        if let Err(error) = unshared {
            eprintln!("skipped: no network namespace can be made: {error}");
            return;
        }
        cable();
        test(&Network::default());
    });
    thread.join().unwrap();
}

fn cable() {
    let end = |name: &str, mac: [u8; 6]| {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Address(mac.to_vec()),
        ];
        message
    };
    let mut message = end("eth0", MACS[0]);
    let peer = InfoData::Veth(InfoVeth::Peer(end("eth1", MACS[1])));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(peer),
    ]));
    Netlink::open()
        .unwrap()
        .change(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .unwrap();
}

fn interface(name: &str, mac: [u8; 6], addresses: &[&str]) -> NetworkInterface {
    NetworkInterface {
        name: name.into(),
        mac: mac.to_vec(),
        addresses: addresses.iter().map(|text| prefix(text)).collect(),
        ..NetworkInterface::default()
    }
}

fn bytes(address: &str) -> Vec<u8> {
    match address.parse().unwrap() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn prefix(text: &str) -> NetworkPrefix {
    let (address, length) = text.split_once('/').unwrap();
    NetworkPrefix {
        address: bytes(address),
        length: length.parse().unwrap(),
        ..NetworkPrefix::default()
    }
}

fn route(destination: &str, gateway: &str, device: &str) -> NetworkRoute {
    NetworkRoute {
        destination: match destination {
            "" => MessageField::none(),
            text => MessageField::some(prefix(text)),
        },
        ipv6: gateway.contains(':'),
        gateway: match gateway {
            "" => Vec::new(),
            text => bytes(text),
        },
        device: device.into(),
        ..NetworkRoute::default()
    }
}

fn configure(
    network: &Network,
    interfaces: &[NetworkInterface],
    routes: &[NetworkRoute],
) -> Result<()> {
    let request = ConfigureNetworkRequest {
        interfaces: interfaces.to_vec(),
        routes: routes.to_vec(),
        ..ConfigureNetworkRequest::default()
    };
    request_of(network, &request)
}

fn request_of(network: &Network, request: &ConfigureNetworkRequest) -> Result<()> {
    let wanted = Wanted::parse(request)?;
    wanted.apply(&mut Netlink::open()?, &mut network.configured())
}

/// The name of the interface with this MAC, and its addresses but those that the kernel made.
fn shown(mac: [u8; 6]) -> (String, Vec<String>) {
    let text = Mac::from_slice(&mac).unwrap().to_string();
    let mut found = list_interfaces().unwrap().into_iter();
    let interface = found.find(|found| found.hwAddr == text).unwrap();
    let addresses = interface.IPAddresses.iter();
    let addresses = addresses
        .map(|address| format!("{}/{}", address.address, address.mask))
        .filter(|address| !address.starts_with("fe80:"));
    (interface.name.clone(), addresses.collect())
}

/// The routes that are not the kernel's.
fn routes_shown() -> Vec<String> {
    let mut netlink = Netlink::open().unwrap();
    let found = routes::list(&mut netlink).unwrap().into_iter();
    let mut shown: Vec<String> = found
        .filter(|found| !found.is_kernels)
        .map(|found| {
            let Route {
                scope,
                mtu,
                metric,
                source,
                on_link,
                ..
            } = &found.route;
            let mut text = found.route.to_string();
            if let Some(source) = source {
                text += &format!(" src {source}");
            }
            if let Some(mtu) = mtu {
                text += &format!(" mtu {mtu}");
            }
            if let Some(metric) = metric.filter(|metric| *metric != 1024) {
                text += &format!(" metric {metric}");
            }
            if *on_link {
                text += " onlink";
            }
            if *scope != 0 {
                text += &format!(" scope {scope}");
            }
            text
        })
        .collect();
    shown.sort();
    shown
}

#[test]
fn interfaces_get_names_also_when_two_swap() {
    in_a_namespace(|network| {
        let swapped = [
            interface("eth1", MACS[0], &["10.0.0.1/24"]),
            interface("eth0", MACS[1], &["10.0.1.1/24"]),
        ];
        configure(network, &swapped, &[]).unwrap();
        assert_eq!(shown(MACS[0]), ("eth1".into(), vec!["10.0.0.1/24".into()]));
        assert_eq!(shown(MACS[1]), ("eth0".into(), vec!["10.0.1.1/24".into()]));
        // Kata's call is for one: the other makes room, and keeps its address.
        let one = types::Interface {
            name: "eth0".into(),
            hwAddr: "02:00:00:00:00:01".into(),
            mtu: 1400,
            raw_flags: 0x80,
            IPAddresses: vec![types::IPAddress {
                address: "10.0.0.7".into(),
                mask: "255.255.0.0".into(),
                ..types::IPAddress::default()
            }],
            ..types::Interface::default()
        };
        let wanted = kata::interface(&one).unwrap();
        configure::set_interfaces(&mut Netlink::open().unwrap(), &[wanted]).unwrap();
        assert_eq!(shown(MACS[0]), ("eth0".into(), vec!["10.0.0.7/16".into()]));
        assert_eq!(shown(MACS[1]), ("eth1".into(), vec!["10.0.1.1/24".into()]));
        let listed = list_interfaces().unwrap();
        let eth0 = listed.iter().find(|found| found.name == "eth0").unwrap();
        assert_eq!((eth0.mtu, eth0.raw_flags & 0x81), (1400, 0x81));
    });
}

#[test]
fn addresses_are_replaced_and_ipv6_ones_are_usable_at_once() {
    in_a_namespace(|network| {
        let first = ["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64"];
        let both = |addresses: &[&str]| {
            [
                interface("eth0", MACS[0], addresses),
                interface("eth1", MACS[1], &[]),
            ]
        };
        configure(network, &both(&first), &[]).unwrap();
        assert_eq!(shown(MACS[0]).1, first);
        // An address that is tentative cannot be bound to.
        std::net::UdpSocket::bind("[fd00::1]:0").unwrap();
        // The first one of a network takes the others along, which come back.
        let second = ["10.0.0.2/24", "10.0.0.3/24"];
        configure(network, &both(&second), &[]).unwrap();
        assert_eq!(shown(MACS[0]).1, second);
        configure(network, &both(&second), &[]).unwrap();
        assert_eq!(shown(MACS[0]).1, second);
    });
}

#[test]
fn an_address_brings_no_route_where_the_host_has_none() {
    in_a_namespace(|network| {
        let own = ["10.0.0.2/24", "fd00::2/64"];
        let with = interface("eth0", MACS[0], &own);
        let mut without = with.clone();
        without.without_route = own.map(prefix).to_vec();
        let to_its_network = || {
            let found = super::routes::list(&mut Netlink::open().unwrap()).unwrap();
            found.iter().filter(|found| found.is_kernels).count()
        };
        configure(network, std::slice::from_ref(&with), &[]).unwrap();
        let routes = to_its_network();
        // Back and forth.
        for _ in 0..2 {
            configure(network, std::slice::from_ref(&without), &[]).unwrap();
            assert_eq!(shown(MACS[0]).1, own);
            assert_eq!(to_its_network(), routes - 2);
            configure(network, std::slice::from_ref(&with), &[]).unwrap();
            assert_eq!(to_its_network(), routes);
        }
    });
}

#[test]
fn an_interface_that_is_not_named_any_more_is_put_away() {
    in_a_namespace(|network| {
        let eth0 = interface("eth0", MACS[0], &["10.0.0.1/24", "fd00::1/64"]);
        configure(network, std::slice::from_ref(&eth0), &[]).unwrap();
        configure(network, &[], &[]).unwrap();
        assert_eq!(shown(MACS[0]).1, [""; 0]);
        let links = super::link::list(&mut Netlink::open().unwrap()).unwrap();
        assert!(!super::link::by_name(&links, "eth0").unwrap().is_up());
        configure(network, &[eth0], &[]).unwrap();
        assert_eq!(shown(MACS[0]).1, ["10.0.0.1/24", "fd00::1/64"]);
    });
}

#[test]
fn routes_of_each_kind_are_set_in_any_order_and_replaced() {
    in_a_namespace(|network| {
        let interfaces = [
            interface("eth0", MACS[0], &["10.0.0.1/24", "fd00::1/64"]),
            interface("eth1", MACS[1], &["10.0.1.1/24"]),
        ];
        let on_link = NetworkRoute {
            on_link: true,
            ..route("10.7.0.0/16", "192.168.9.9", "eth0")
        };
        let with_all = NetworkRoute {
            source: bytes("10.0.0.1"),
            mtu: 1300,
            metric: 50,
            ..route("10.8.0.0/16", "10.0.0.254", "eth0")
        };
        let wanted = [
            route("", "172.16.0.1", ""),
            route("172.16.0.0/24", "", "eth0"),
            route("", "fd00::ff", "eth0"),
            on_link,
            with_all,
            // What the kernel has set by itself.
            route("10.0.0.0/24", "", "eth0"),
        ];
        configure(network, &interfaces, &wanted).unwrap();
        let expected = [
            "10.7.0.0/16 via 192.168.9.9 dev eth0 onlink",
            "10.8.0.0/16 via 10.0.0.254 dev eth0 src 10.0.0.1 mtu 1300 metric 50",
            "172.16.0.0/24 dev eth0 scope 253",
            "default (IPv6) via fd00::ff dev eth0",
            "default via 172.16.0.1 dev eth0",
        ];
        assert_eq!(routes_shown(), expected);
        configure(network, &interfaces, &wanted).unwrap();
        assert_eq!(routes_shown(), expected);

        // Kata's call takes those back, and neither the kernel's nor a container's.
        let mut foreign = message_of("10.9.0.0/16", "eth1");
        foreign.header.protocol = RouteProtocol::Boot;
        let mut netlink = Netlink::open().unwrap();
        netlink
            .change(RouteNetlinkMessage::NewRoute(foreign), NLM_F_CREATE)
            .unwrap();
        let default = types::Route {
            gateway: "10.0.1.254".into(),
            device: "eth1".into(),
            ..types::Route::default()
        };
        let answered = network.update_routes(&[default]).unwrap();
        assert_eq!(
            routes_shown(),
            [
                "10.9.0.0/16 dev eth1 scope 253",
                "default via 10.0.1.254 dev eth1"
            ]
        );
        assert!(answered.iter().any(|route| route.dest == "10.0.0.0/24"));
        assert!(answered.iter().any(|route| route.dest.is_empty()));
    });
}

fn message_of(destination: &str, device: &str) -> RouteMessage {
    let links = link::list(&mut Netlink::open().unwrap()).unwrap();
    let request = ConfigureNetworkRequest {
        routes: vec![route(destination, "", device)],
        ..ConfigureNetworkRequest::default()
    };
    let wanted = Wanted::parse(&request).unwrap();
    wanted.routes[0].message(&links).unwrap()
}

/// The permanent neighbours, as `ADDRESS at BYTES`.
fn neighbours_shown() -> Vec<String> {
    let mut shown = Vec::new();
    let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let dumped = Netlink::open().unwrap().dump(all, |entry| {
        let RouteNetlinkMessage::NewNeighbour(message) = entry else {
            return;
        };
        let mut text = String::new();
        let mut last = 0;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                    text = ip.to_string()
                }
                NeighbourAttribute::LinkLayerAddress(mac) => last = *mac.last().unwrap(),
                _ => {}
            }
        }
        if u16::from(message.header.state) == 0x80 {
            shown.push(format!("{text} at {last}"));
        }
    });
    dumped.unwrap();
    shown.sort();
    shown
}

#[test]
fn neighbours_are_set_and_those_that_are_not_named_go() {
    in_a_namespace(|network| {
        let neighbour = |address: &str, last| NetworkNeighbour {
            address: bytes(address),
            device: "eth0".into(),
            mac: vec![2, 0, 0, 0, 0, last],
            ..NetworkNeighbour::default()
        };
        let mut request = ConfigureNetworkRequest {
            interfaces: vec![interface("eth0", MACS[0], &["10.0.0.1/24"])],
            neighbours: vec![neighbour("10.0.0.8", 8), neighbour("10.0.0.9", 9)],
            ..ConfigureNetworkRequest::default()
        };
        request_of(network, &request).unwrap();
        assert_eq!(neighbours_shown(), ["10.0.0.8 at 8", "10.0.0.9 at 9"]);
        request.neighbours = vec![neighbour("10.0.0.9", 7)];
        request_of(network, &request).unwrap();
        assert_eq!(neighbours_shown(), ["10.0.0.9 at 7"]);
        let one = types::ARPNeighbor {
            toIPAddress: MessageField::some(types::IPAddress {
                address: "10.0.0.5".into(),
                ..types::IPAddress::default()
            }),
            device: "eth0".into(),
            lladdr: "02:00:00:00:00:05".into(),
            state: 0x80,
            ..types::ARPNeighbor::default()
        };
        let message = agent::ARPNeighbors {
            ARPNeighbors: vec![one],
            ..agent::ARPNeighbors::default()
        };
        network.add_neighbours(&message).unwrap();
        assert_eq!(neighbours_shown(), ["10.0.0.5 at 5", "10.0.0.9 at 7"]);
    });
}

#[test]
fn a_failure_names_the_interface_or_the_route() {
    in_a_namespace(|network| {
        let nobody = interface("eth0", [2, 0, 0, 0, 0, 9], &[]);
        let error = configure(network, &[nobody], &[]).unwrap_err();
        assert!(matches!(error, Error::NoInterface(_)), "{error}");
        assert!(error.to_string().contains("02:00:00:00:00:09"), "{error}");

        let eth0 = interface("eth0", MACS[0], &["10.0.0.1/24"]);
        let twice = [eth0.clone(), interface("eth5", MACS[0], &[])];
        let error = configure(network, &twice, &[]).unwrap_err();
        assert!(error.to_string().contains("eth5"), "{error}");

        let small = NetworkInterface {
            mtu: 1,
            ..eth0.clone()
        };
        let error = configure(network, &[small], &[]).unwrap_err();
        assert!(
            error.to_string().contains("MTU of interface \"eth0\""),
            "{error}"
        );

        let far = route("10.9.0.0/16", "172.31.0.1", "eth0");
        let error = configure(network, std::slice::from_ref(&eth0), &[far]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("10.9.0.0/16 via 172.31.0.1 dev eth0"),
            "{error}"
        );
        let nowhere = route("10.9.0.0/16", "", "net7");
        let error = configure(network, &[eth0], &[nowhere]).unwrap_err();
        assert!(error.to_string().contains("\"net7\""), "{error}");
        assert!(error.to_string().contains("route 10.9.0.0/16"), "{error}");
        assert!(routes_shown().is_empty());
    });
}
