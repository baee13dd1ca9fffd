//! A guest whose root does with its interface what it likes reaches nothing that its namespace could
//! not.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;

use super::host;
use super::network::{Wire, create, sh};
use super::network_endpoints::{add_frames, inside, mac_of, with_network_rights};

/// How long a datagram may be on its way.
const LIMIT: Duration = Duration::from_secs(30);

/// Where the foreign addresses are that the guest takes.
const FOREIGN: &str = "10.66.0.9";

/// How many frames a link of the namespace has received, and sent.
fn frames(namespace: &str, link: &str) -> (u64, u64) {
    let shown = sh("ip", &["-n", namespace, "-s", "-j", "link", "show", link]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let count = |way: &str| shown[0]["stats64"][way]["packets"].as_u64().unwrap();
    (count("rx"), count("tx"))
}

#[test]
fn a_guest_with_foreign_addresses_reaches_only_what_its_namespace_reaches() {
    let mut host = host();
    let wire = Wire::new();
    let (container, peer) = (wire.container.as_str(), wire.peer.as_str());
    // A link of the namespace that is none of the guest's, and a bystander at its other end.
    let bystander = format!("{container}-b");
    sh("ip", &["netns", "add", &bystander]);
    let _gone = Removed(&bystander);
    for words in [
        format!("-n {container} link add side type veth peer name end netns {bystander}"),
        format!("-n {container} link set side addrgenmode none up"),
        format!("-n {bystander} link set end addrgenmode none up"),
        format!("-n {bystander} addr add 10.8.0.1/24 dev end"),
        format!("-n {bystander} link set lo up"),
        format!("-n {peer} route add 10.66.0.0/16 dev out"),
    ] {
        sh("ip", &words.split(' ').collect::<Vec<_>>());
    }
    let before = wire.seen();
    let bundle = wire.bundle_with(&host, &["/bin/sleep", "1000"], with_network_rights);
    add_frames(&host);
    assert!(create(&host, &bundle, None, "c1"));
    host.virtc(["start", "c1"]).expect_code(0);

    let bind = |namespace: &str, address: &'static str| {
        let socket = inside(namespace, || UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    };
    let neighbour = bind(peer, "0.0.0.0:5000");
    // In the namespace itself, at all of its addresses and on its loopback; beyond the other link; and
    // on the host.
    let own = bind(container, "0.0.0.0:5000");
    let beyond = bind(&bystander, "0.0.0.0:5000");
    let hosts = UdpSocket::bind("127.0.0.1:0").unwrap();
    let hosts_port = hosts.local_addr().unwrap().port();
    let side = frames(container, "side");
    let end = frames(&bystander, "end");

    // Another MAC and further addresses; then whole frames, from and to whoever may be anywhere: the
    // bystander, the namespace's own link, everybody; and a flood.
    let to = mac_of(peer, "out");
    let (link, other) = (mac_of(container, "eth0"), mac_of(&bystander, "end"));
    let mut script = format!(
        "set -e; ip link set eth0 down; ip link set eth0 address 02:de:ad:be:ef:01; \
         ip link set eth0 up; ip addr add {FOREIGN}/16 dev eth0; \
         ip route add 10.8.0.0/24 dev eth0; ip route add 10.99.0.0/24 via 10.7.0.1; \
         arping -q -c 2 -w 3 -I eth0 -s 10.8.0.1 10.7.0.1 || true; \
         arping -q -U -c 2 -w 3 -I eth0 10.7.0.2 || true; "
    );
    for from_mac in ["02:de:ad:be:ef:01", &other, &to] {
        for to_mac in [&to, &link, &other, "ff:ff:ff:ff:ff:ff"] {
            for (to_ip, port) in [
                ("10.8.0.1", 5000),
                ("10.7.0.2", 5000),
                ("10.7.0.255", 5000),
                ("127.0.0.1", 5000),
                ("127.0.0.1", hosts_port),
            ] {
                script += &format!(
                    "frames eth0 2 {from_mac} {to_mac} 10.8.0.1 {to_ip} {port} 64 stray; "
                );
            }
        }
    }
    script += &format!("frames eth0 20000 {other} {to} 10.8.0.1 10.8.0.1 5000 1300 stray; ");
    script += &format!("frames eth0 10 02:00:00:00:00:77 {to} {FOREIGN} 10.7.0.1 5000 64 foreign");
    host.virtc(["exec", "c1", "sh", "-c", &script])
        .expect_code(0);

    // What its namespace reaches, it reaches too, whoever it says it is: so would the namespace.
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = neighbour.recv_from(&mut buffer).unwrap();
        if buffer[..length].starts_with(b"foreign") {
            assert_eq!(from.ip().to_string(), FOREIGN);
            break;
        }
    }
    for (socket, whose) in [
        (&own, "namespace"),
        (&beyond, "bystander"),
        (&hosts, "host"),
    ] {
        socket.set_nonblocking(true).unwrap();
        let got = socket
            .recv(&mut buffer)
            .map(|length| buffer[..length].to_vec());
        let error = got.expect_err(whose);
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{whose}");
    }
    assert_eq!(frames(container, "side"), side, "by the other link");
    assert_eq!(frames(&bystander, "end"), end, "at the other end");

    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(wire.seen(), before);
    host.expect_nothing_left();
}

/// Removes a namespace of the test's.
struct Removed<'a>(&'a str);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip")
            .args(["netns", "del", self.0])
            .status();
    }
}
