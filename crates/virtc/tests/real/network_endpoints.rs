//! How the links of a namespace reach the machine: models, queues, limits, and how many fit.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_vm::Host;

use super::host;
use super::network::{Wire, create, sh};

/// How long anything may take that has begun to move.
const LIMIT: Duration = Duration::from_secs(60);

/// What the limited ones may carry, and how it is written.
const RATE: f64 = 10_000_000.0;
const RATE_TEXT: &str = "10 Mbit";

/// How long a rate is looked at, after a moment in which buckets and queues fill.
const WARM_UP: Duration = Duration::from_secs(1);
const LOOKED_AT: Duration = Duration::from_secs(4);

/// Does something in a network namespace of the test's.
pub(super) fn inside<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

/// Rights of a container's root over its guest's network.
pub(super) fn with_network_rights(config: &mut Value) {
    let rights = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_KILL"];
    config["process"]["capabilities"] =
        json!({"bounding": rights, "effective": rights, "permitted": rights});
}

/// Adds the program `frames` to the root of the host's containers.
pub(super) fn add_frames(host: &Host) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/frames.c");
    let program = host.dir("root").join("bin/frames");
    let program = program.to_str().unwrap();
    sh("gcc", &["-O2", "-static", "-s", "-o", program, source]);
}

/// The hardware address of a link.
pub(super) fn mac_of(namespace: &str, link: &str) -> String {
    let shown = sh("ip", &["-n", namespace, "-j", "link", "show", link]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown[0]["address"].as_str().unwrap().to_owned()
}

/// A container of the wire that runs.
fn started(host: &Host, wire: &Wire) {
    let bundle = wire.bundle(host, &["/bin/sleep", "1000"]);
    assert!(create(host, &bundle, None, "c1"));
    host.virtc(["start", "c1"]).expect_code(0);
}

fn assert_served(host: &Host, wire: &Wire) {
    let script = "echo served > /page; httpd -p 8080 -h /";
    host.virtc(["exec", "c1", "sh", "-c", script])
        .expect_code(0);
    for address in ["10.7.0.2", "[fd07::2]"] {
        let url = format!("http://{address}:8080/page");
        assert_eq!(wire.fetched(&url), "served\n", "{url}");
    }
}

#[test]
fn a_macvtap_passes_what_comes_and_the_namespace_stays_as_it_was() {
    let mut host = host();
    host.env("VIRTC_NETWORK_INTERWORKING", "macvtap");
    let wire = Wire::new();
    let before = wire.seen();
    started(&host, &wire);
    assert!(wire.seen().contains("macvtap"), "{}", wire.seen());
    assert_served(&host, &wire);
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(wire.seen(), before);
    host.expect_nothing_left();
}

#[test]
fn several_queues_are_as_many_as_the_machine_has_processors() {
    let mut host = host();
    host.env("VIRTC_NETWORK_QUEUES", "4");
    host.env("VIRTC_VM_VCPUS", "2");
    let wire = Wire::new();
    let before = wire.seen();
    started(&host, &wire);
    let script = "ls -d /sys/class/net/eth0/queues/rx-*";
    let bundle_has_sysfs = "mkdir -p /sys; mount -t sysfs sysfs /sys";
    let script = format!("{bundle_has_sysfs}; {script}");
    let exec = ["exec", "--cap", "CAP_SYS_ADMIN", "c1", "sh", "-c", &script];
    let queues = host.virtc(exec).expect_code(0).out();
    assert_eq!(queues.lines().count(), 2, "{queues}");
    assert_served(&host, &wire);
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(wire.seen(), before);
    host.expect_nothing_left();
}

#[test]
fn a_tap_reaches_the_machine_by_itself_and_a_veth_does_not() {
    let mut host = host();
    host.env("VIRTC_NETWORK_INTERWORKING", "none");
    let wire = Wire::new();
    let before = wire.seen();
    let bundle = wire.bundle(&host, &["/bin/sleep", "1000"]);
    host.virtc(["create", "--bundle", &bundle, "c1"])
        .expect_code(1)
        .expect_err(&["none", "eth0", "veth"]);
    assert_eq!(wire.seen(), before);

    // In place of the veth: a tap that has all that comes by it. Not by a bridge: the machine has the
    // tap's own hardware address, which is the bridge's then.
    let run = |program: &str, words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        sh(program, &[&["-n", &wire.container], &words[..]].concat())
    };
    let ip = |words: &str| run("ip", words);
    ip("addr flush dev eth0");
    ip("link set eth0 down");
    ip("link set eth0 name wire addrgenmode none");
    ip("link set wire up");
    ip("tuntap add mode tap name eth0");
    ip("link set eth0 addrgenmode none");
    ip("link set eth0 up");
    ip("addr add 10.7.0.2/24 dev eth0");
    ip("addr add fd07::2/64 dev eth0 nodad");
    for (from, to) in [("wire", "eth0"), ("eth0", "wire")] {
        run("tc", &format!("qdisc add dev {from} ingress"));
        let filter = format!(
            "filter add dev {from} parent ffff: protocol all u32 match u32 0 0 \
             action mirred egress redirect dev {to}"
        );
        run("tc", &filter);
    }
    let links = || {
        ip("-o link")
            .replace("NO-CARRIER,", "")
            .replace(",LOWER_UP", "")
    };
    let names = |text: String| -> Vec<String> {
        let names = text.lines().filter_map(|line| line.split(": ").nth(1));
        names.map(str::to_owned).collect()
    };
    let before = names(links());
    started(&host, &wire);
    assert_eq!(names(links()), before, "nothing is added");
    assert_served(&host, &wire);
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(names(links()), before);
    assert!(!ip("-d link show eth0").contains("vnet_hdr on"));
    host.expect_nothing_left();
}

#[test]
fn vhost_that_must_be_there_and_is_not_is_refused_by_name() {
    if std::path::Path::new("/dev/vhost-net").exists() {
        return;
    }
    let mut host = host();
    host.env("VIRTC_NETWORK_VHOST", "on");
    let wire = Wire::new();
    let before = wire.seen();
    let bundle = wire.bundle(&host, &["/bin/true"]);
    host.virtc(["create", "--bundle", &bundle, "c1"])
        .expect_code(1)
        .expect_err(&["network.vhost", "/dev/vhost-net"]);
    assert_eq!(wire.seen(), before);
    host.expect_nothing_left();
}

/// Bits a second that `receive` counts, after a warm-up. Each call gives bytes.
fn rate_of(mut receive: impl FnMut() -> usize) -> f64 {
    let begun = Instant::now();
    while begun.elapsed() < WARM_UP {
        receive();
    }
    let begun = Instant::now();
    let mut bytes = 0;
    while begun.elapsed() < LOOKED_AT {
        bytes += receive();
    }
    bytes as f64 * 8.0 / begun.elapsed().as_secs_f64()
}

/// Checks a rate of payload, which is less than that of frames.
fn assert_limited(what: &str, rate: f64) {
    assert!(
        rate > 0.5 * RATE && rate < 1.1 * RATE,
        "{what}: {:.2} Mbit/s",
        rate / 1e6
    );
}

#[test]
fn rate_limits_hold_in_both_directions_whatever_the_guest_sends() {
    let mut host = host();
    // Those of the annotations, over what the configuration says.
    host.env("VIRTC_RUNTIME_ANNOTATIONS", "network.send_rate");
    host.env("VIRTC_NETWORK_SEND_RATE", "1 Gbit");
    host.env("VIRTC_NETWORK_RECEIVE_RATE", RATE_TEXT);
    let wire = Wire::new();
    let before = wire.seen();
    let bundle = wire.bundle_with(&host, &["/bin/sleep", "1000"], |config| {
        config["annotations"] = json!({"io.virtcontainers.network.send_rate": RATE_TEXT});
        with_network_rights(config);
    });
    add_frames(&host);
    assert!(create(&host, &bundle, None, "c1"));
    host.virtc(["start", "c1"]).expect_code(0);
    let peer = wire.peer.as_str();

    // Sends by TCP.
    let listener = inside(peer, || TcpListener::bind("10.7.0.1:5001").unwrap());
    let send = "nc 10.7.0.1 5001 </dev/zero >/dev/null 2>&1 &";
    host.virtc(["exec", "c1", "sh", "-c", send]).expect_code(0);
    let (mut connection, _) = listener.accept().unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let rate = rate_of(|| connection.read(&mut buffer).unwrap());
    drop(connection);
    assert_limited("sent by TCP", rate);

    // Floods, with frames of its own making.
    let socket = inside(peer, || UdpSocket::bind("10.7.0.1:5002").unwrap());
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let to = mac_of(peer, "out");
    let frames = format!("frames eth0 0 02:00:00:00:00:99 {to} 10.7.0.77 10.7.0.1 5002 1300 flood");
    let flood = format!("for n in 1 2; do {frames} >/dev/null 2>&1 & done");
    host.virtc(["exec", "c1", "sh", "-c", &flood])
        .expect_code(0);
    let rate = rate_of(|| socket.recv(&mut buffer).unwrap());
    assert_limited("sent by a flood", rate);
    host.virtc(["exec", "c1", "busybox", "killall", "frames"])
        .expect_code(0);

    // Receives by TCP.
    let serve = "nc -l -p 5003 >/dev/null </dev/null 2>&1 & \
                 until netstat -ltn | grep -q :5003; do :; done";
    host.virtc(["exec", "c1", "sh", "-c", serve]).expect_code(0);
    let mut connection = inside(peer, || TcpStream::connect("10.7.0.2:5003").unwrap());
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    let bytes = 5 << 20;
    let begun = Instant::now();
    connection.write_all(&vec![0; bytes]).unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
    assert_eq!(connection.read(&mut buffer).unwrap(), 0);
    let rate = bytes as f64 * 8.0 / begun.elapsed().as_secs_f64();
    assert_limited("received by TCP", rate);

    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(wire.seen(), before);
    host.expect_nothing_left();
}

#[test]
fn an_annotation_that_is_not_allowed_is_refused_by_name() {
    let mut host = host();
    let wire = Wire::new();
    let before = wire.seen();
    let bundle = wire.bundle_with(&host, &["/bin/true"], |config| {
        config["annotations"] = json!({"io.virtcontainers.network.send_rate": RATE_TEXT});
    });
    host.virtc(["create", "--bundle", &bundle, "c1"])
        .expect_code(1)
        .expect_err(&["io.virtcontainers.network.send_rate", "runtime.annotations"]);
    assert_eq!(wire.seen(), before);
    host.expect_nothing_left();
}

/// The most links that a machine can begin with.
const LINKS_MAX: usize = 64;

/// Adds links until the wire's container has so many.
fn add_links(wire: &Wire, from: usize, to: usize) {
    let mut lines = String::new();
    for n in from..to {
        let link = format!("net{n:02}");
        lines += &format!("link add {link} type veth peer name p{n:02}\n");
        lines += &format!("link set p{n:02} addrgenmode none up\n");
        lines += &format!("link set {link} addrgenmode none up\n");
        lines += &format!("addr add 10.9.{n}.2/24 dev {link}\n");
        // Its other end is none of the guest's links: it has no address.
    }
    let mut command = std::process::Command::new("ip");
    command.args(["-n", &wire.container, "-batch", "-"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn sixty_four_links_are_plugged_and_one_more_is_refused_before_anything_changes() {
    let mut host = host();
    host.limit(Duration::from_secs(120));
    let wire = Wire::new();
    add_links(&wire, 1, LINKS_MAX);
    let before = wire.seen();
    started(&host, &wire);
    let listed = host.virtc(["network", "ls", "c1"]).expect_code(0).out();
    for n in 1..LINKS_MAX {
        assert!(listed.contains(&format!("\"10.9.{n}.2\"")), "{n}: {listed}");
    }
    assert_served(&host, &wire);
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(wire.seen(), before);

    add_links(&wire, LINKS_MAX, LINKS_MAX + 1);
    let before = wire.seen();
    let bundle = wire.bundle(&host, &["/bin/true"]);
    host.virtc(["create", "--bundle", &bundle, "c1"])
        .expect_code(1)
        .expect_err(&["65 links", "64 network devices"]);
    assert_eq!(wire.seen(), before);
    host.expect_nothing_left();
}
