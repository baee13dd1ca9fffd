//! Addresses behind a bridge of a namespace that stands for the host.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use std::cell::RefCell;
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{TestNamespace, assert_same, need_root};
use tempfile::TempDir;
use vc_network::{
    Attachment, Endpoint, Error, HostNetwork, InterworkingModel, Lease, Namespace, Nat, NatConfig,
    Protocol, PublishedPort, Scan,
};
use vc_types::{Hint, SandboxId};

const CYCLES: usize = 5;

/// How long what must come is waited for.
const LIMIT: Duration = Duration::from_secs(10);

/// How long what must not come is waited for.
const SILENCE: Duration = Duration::from_millis(300);

/// After which time a packet is sent again: the kernel opens a new port of a bridge a moment later.
const RESEND: Duration = Duration::from_millis(50);

const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

const DIRECTORY_VARIABLE: &str = "VC_NETWORK_TEST_NAT_DIRECTORY";
const HOST_VARIABLE: &str = "VC_NETWORK_TEST_NAT_HOST";
const MARK: &str = "leased";

/// A host that is connected with the world, and no router.
struct Setting {
    host: TestNamespace,
    world: TestNamespace,
    directory: TempDir,
}

impl Setting {
    fn new() -> Self {
        let (host, world) = (TestNamespace::new(), TestNamespace::new());
        let peer = format!("peer name up0 netns {}", world.name());
        host.ip(&format!("link add up0 type veth {peer}"));
        for (side, address) in [(&host, HOST), (&world, WORLD)] {
            side.ip("link set lo up");
            side.ip("link set up0 addrgenmode none");
            side.ip("link set up0 up");
            side.ip(&format!("addr add {address}/24 dev up0"));
        }
        // The world knows the way, and is to be kept out all the same.
        world.ip(&format!("route add 10.89.199.0/24 via {HOST}"));
        let this = Self {
            host,
            world,
            directory: tempfile::tempdir().unwrap(),
        };
        this.set_forwarding("0");
        this
    }

    fn nat(&self) -> Nat {
        self.nat_with(NatConfig::default())
    }

    fn nat_with(&self, config: NatConfig) -> Nat {
        let host = HostNetwork::at(self.host.path()).unwrap();
        Nat::open(self.directory.path(), config, host).unwrap()
    }

    fn forwarding(&self) -> String {
        let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
        self.host.open().run(read).unwrap().trim().to_owned()
    }

    fn set_forwarding(&self, value: &str) {
        let write = || std::fs::write("/proc/sys/net/ipv4/ip_forward", value);
        self.host.open().run(write).unwrap();
    }

    /// All of the host that a lease could change, and the files.
    fn snapshot(&self) -> String {
        let files = std::fs::read_dir(self.directory.path()).unwrap().count();
        let rules = self.host.nft("list ruleset");
        let forwarding = self.forwarding();
        format!("{}{rules}{forwarding} {files}", self.host.snapshot())
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // Also after a failure, nothing stays mounted.
        let host = HostNetwork::at(self.host.path()).unwrap();
        let nat = Nat::open(self.directory.path(), NatConfig::default(), host).unwrap();
        let collected = nat.collect(|_| false);
        assert!(
            collected.is_ok() || std::thread::panicking(),
            "{collected:?}"
        );
    }
}

fn id(name: &str) -> SandboxId {
    SandboxId::new(name).unwrap()
}

fn everybody(_: &SandboxId) -> bool {
    true
}

fn inside(lease: &Lease) -> Namespace {
    Namespace::open(lease.namespace()).unwrap()
}

fn listener(namespace: &Namespace, address: impl Into<IpAddr>, port: u16) -> TcpListener {
    let address = SocketAddr::new(address.into(), port);
    let bound = namespace.run(|| TcpListener::bind(address));
    bound.unwrap()
}

fn connect(namespace: &Namespace, address: impl Into<IpAddr>, port: u16) -> io::Result<TcpStream> {
    let to = SocketAddr::new(address.into(), port);
    // The outer error is that of the namespace.
    let connected = namespace.run(|| Ok(TcpStream::connect_timeout(&to, LIMIT)));
    connected.unwrap()
}

/// Connects, and gives back from where the listener sees it after a byte came each way.
fn exchange(
    namespace: &Namespace,
    listener: &TcpListener,
    address: impl Into<IpAddr>,
    port: u16,
) -> std::net::SocketAddr {
    let mut client = connect(namespace, address, port).unwrap();
    let (mut server, from) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
    }
    client.write_all(b"q").unwrap();
    let mut byte = [0];
    server.read_exact(&mut byte).unwrap();
    server.write_all(b"a").unwrap();
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"a");
    from
}

/// Whether one of the packets comes through that are sent within `limit`.
fn udp_arrives(
    from: &Namespace,
    to: &UdpSocket,
    address: impl Into<IpAddr>,
    port: u16,
    limit: Duration,
) -> bool {
    let address = address.into();
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let sender = from.run(|| UdpSocket::bind((any, 0)));
    let sender = sender.unwrap();
    to.set_read_timeout(Some(RESEND)).unwrap();
    let end = Instant::now() + limit;
    loop {
        // No way to there is one of the ways not to arrive.
        let _ = sender.send_to(b"x", (address, port));
        if to.recv_from(&mut [0; 8]).is_ok() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
    }
}

fn udp(namespace: &Namespace, address: impl Into<IpAddr>, port: u16) -> UdpSocket {
    let address = address.into();
    namespace.run(|| UdpSocket::bind((address, port))).unwrap()
}

fn port(protocol: Protocol, address: impl Into<IpAddr>, host: u16, guest: u16) -> PublishedPort {
    PublishedPort {
        protocol,
        host_address: address.into(),
        host_port: NonZeroU16::new(host).unwrap(),
        guest_port: NonZeroU16::new(guest).unwrap(),
    }
}

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
fn a_port_that_a_program_of_the_host_has_is_refused_and_so_is_one_twice() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let nat = setting.nat();
    let taken = listener(&setting.host.open(), Ipv4Addr::UNSPECIFIED, 8080);
    let wanted = port(Protocol::Tcp, Ipv4Addr::LOCALHOST, 8080, 80);
    let other = port(Protocol::Tcp, Ipv4Addr::LOCALHOST, 8081, 80);
    for ports in [vec![wanted], vec![other, other]] {
        let error = nat.lease(&id("web"), &ports, everybody).unwrap_err();
        assert!(
            matches!(error, Error::PortTaken { owner: None, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("127.0.0.1:808"), "{error}");
        assert_same(&setting.snapshot(), &before, "after it");
    }
    drop(taken);
    nat.lease(&id("web"), &[wanted], everybody).unwrap();
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

/// Runs a program inside.
fn run(namespace: &Namespace, command: &str) {
    let words: Vec<_> = command.split_whitespace().collect();
    let status = namespace.run(|| Command::new(words[0]).args(&words[1..]).status());
    assert!(status.unwrap().success(), "{command}");
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
fn a_file_that_cannot_be_read_is_an_error_and_changes_nothing() {
    need_root!();
    let setting = Setting::new();
    let file = setting.directory.path().join("leases.json");
    for text in ["", "{\"host\":1}", "[]"] {
        std::fs::write(&file, text).unwrap();
        let before = setting.snapshot();
        let nat = setting.nat();
        let error = nat.lease(&id("web"), &[], everybody).unwrap_err();
        assert!(error.to_string().contains("leases.json"), "{error}");
        assert!(nat.release(&id("web")).is_err());
        assert_same(&setting.snapshot(), &before, text);
    }
    std::fs::remove_file(file).unwrap();
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

#[test]
fn forwarding_stays_on_where_it_was_on_or_others_have_rules_for_it() {
    need_root!();
    let setting = Setting::new();
    let nat = setting.nat();
    setting.set_forwarding("1");
    nat.lease(&id("web"), &[], everybody).unwrap();
    nat.release(&id("web")).unwrap();
    assert_eq!(setting.forwarding(), "1");

    setting.set_forwarding("0");
    nat.lease(&id("web"), &[], everybody).unwrap();
    setting.host.nft("add table inet engine");
    setting
        .host
        .nft("add chain inet engine forward { type filter hook forward priority 0 ; }");
    nat.release(&id("web")).unwrap();
    assert_eq!(setting.forwarding(), "1");
}

#[test]
fn a_table_that_drops_what_is_forwarded_is_named_and_left_alone() {
    need_root!();
    let setting = Setting::new();
    let nat = setting.nat();
    let lease = nat.lease(&id("one"), &[], everybody).unwrap();
    assert!(lease.dropped_by().is_empty());
    setting.host.nft("add table ip engine");
    setting
        .host
        .nft("add chain ip engine FORWARD { type filter hook forward priority 0 ; policy drop ; }");
    let theirs = setting.host.nft("list table ip engine");
    let lease = nat.lease(&id("two"), &[], everybody).unwrap();
    assert_eq!(lease.dropped_by(), ["ip engine"]);
    nat.release(&id("one")).unwrap();
    nat.release(&id("two")).unwrap();
    assert_eq!(setting.host.nft("list table ip engine"), theirs);
}

#[test]
fn without_nft_the_package_is_named_and_nothing_is_changed() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    // A mount namespace in which the directory of nft is empty.
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tmpfs none /usr/sbin && exec \"$0\" --exact a_process_without_nft --nocapture")
        .arg(env::current_exe().unwrap())
        .env(DIRECTORY_VARIABLE, setting.directory.path())
        .env(HOST_VARIABLE, setting.host.path())
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(MARK), "{said}");
    assert_same(&setting.snapshot(), &before, "after it");
}

/// The other process of the test before. As a test, it does nothing.
#[test]
fn a_process_without_nft() {
    let (Some(directory), Some(host)) =
        (env::var_os(DIRECTORY_VARIABLE), env::var_os(HOST_VARIABLE))
    else {
        return;
    };
    let host = HostNetwork::at(host).unwrap();
    let nat = Nat::open(directory, NatConfig::default(), host).unwrap();
    let error = nat.lease(&id("web"), &[], everybody).unwrap_err();
    assert!(
        matches!(error, Error::NoProgram { program: "nft", .. }),
        "{error}"
    );
    assert!(
        error
            .hint()
            .unwrap()
            .contains("install the package nftables")
    );
    println!("\n{MARK}");
}

#[test]
fn what_cannot_be_leased_is_refused_with_the_reason_and_changes_nothing() {
    need_root!();
    let setting = Setting::new();
    let refused = |config: NatConfig, expected: &str| {
        let before = setting.snapshot();
        let nat = setting.nat_with(config);
        let error = nat.lease(&id("new"), &[], everybody).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_same(&setting.snapshot(), &before, "after it");
        error
    };
    let config = |bridge: &str, subnet: &str| {
        NatConfig::new(bridge.parse().unwrap(), subnet.parse().unwrap()).unwrap()
    };
    setting.host.ip("link add taken type bridge");
    refused(config("taken", "10.1.0.0/24"), "has a link taken");
    setting.host.ip("link del taken");
    let error = refused(
        config("virtc0", "198.51.0.0/16"),
        "the address 198.51.100.1/24",
    );
    assert!(error.hint().unwrap().contains("choose a subnet"));
    setting.host.ip("route add 10.1.2.0/24 via 198.51.100.2");
    refused(config("virtc0", "10.1.0.0/16"), "the route to 10.1.2.0/24");

    let small = setting.nat_with(config("virtc0", "10.3.0.0/29"));
    for number in 0..5 {
        small
            .lease(&id(&format!("n{number}")), &[], everybody)
            .unwrap();
    }
    refused(
        config("virtc0", "10.3.0.0/29"),
        "all addresses of 10.3.0.0/29",
    );
    refused(
        NatConfig::default(),
        "leases of the bridge virtc0 with the subnet 10.3.0.0/29",
    );
    // An owner that has died makes place.
    let lease = small.lease(&id("new"), &[], |owner| owner.as_str() != "n3");
    assert_eq!(lease.unwrap().address(), Ipv4Addr::new(10, 3, 0, 5));
}

#[test]
fn it_is_taken_back_whatever_of_it_has_vanished() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let nat = setting.nat();
    for vanished in ["veth", "bridge", "table", "namespace"] {
        let lease = nat.lease(&id("web"), &[], everybody).unwrap();
        match vanished {
            "veth" => drop(setting.host.ip("link del virtc0-2")),
            "bridge" => drop(setting.host.ip("link del virtc0")),
            "table" => drop(setting.host.nft("flush ruleset")),
            _ => {
                rustix::mount::unmount(lease.namespace(), rustix::mount::UnmountFlags::DETACH)
                    .unwrap();
                std::fs::remove_file(lease.namespace()).unwrap();
            }
        }
        nat.release(&id("web")).unwrap();
        assert_same(&setting.snapshot(), &before, vanished);
    }
}

#[test]
fn it_is_taken_back_at_whichever_step_it_was_interrupted() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let nat = setting.nat();
    let file = setting.directory.path().join("leases.json");
    let lease = nat.lease(&id("web"), &[], everybody).unwrap();
    let text = std::fs::read(&file).unwrap();
    nat.release(&id("web")).unwrap();
    let namespace = lease.namespace();
    let host = &setting.host;
    let steps: [&dyn Fn(); 7] = [
        &|| std::fs::write(&file, &text).unwrap(),
        &|| drop(host.nft("add table ip virtcontainers-virtc0")),
        &|| drop(host.ip("link add virtc0 type bridge")),
        &|| setting.set_forwarding("1"),
        &|| std::fs::create_dir_all(namespace.parent().unwrap()).unwrap(),
        &|| std::fs::write(namespace, "").unwrap(),
        &|| drop(host.ip("link add virtc0-2 type veth peer name inner")),
    ];
    for last in 0..steps.len() {
        for step in &steps[..=last] {
            step();
        }
        assert_ne!(setting.snapshot(), before, "step {last}");
        assert_eq!(nat.collect(|_| false).unwrap(), [id("web")]);
        assert_same(&setting.snapshot(), &before, &format!("step {last}"));
    }
    // One that was interrupted while it was taken back is taken back by the next lease.
    for step in steps {
        step();
    }
    nat.lease(&id("next"), &[], |_| false).unwrap();
    nat.release(&id("next")).unwrap();
    assert_same(&setting.snapshot(), &before, "after the next one");
}

#[test]
fn what_a_killed_owner_had_is_taken_back_by_the_next_one() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let killed = || {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "a_process_that_leases_and_waits", "--nocapture"])
            .env(DIRECTORY_VARIABLE, setting.directory.path())
            .env(HOST_VARIABLE, setting.host.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let leased = output.lines().any(|line| line.unwrap().contains(MARK));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(leased);
    };
    killed();
    let nat = setting.nat();
    let asked = RefCell::new(Vec::new());
    let lease = nat.lease(&id("next"), &[], |owner| {
        asked.borrow_mut().push(owner.to_string());
        false
    });
    assert_eq!(asked.into_inner(), ["killed"]);
    assert_eq!(lease.unwrap().address(), Ipv4Addr::new(10, 89, 199, 2));
    killed();
    let freed = nat.collect(|owner| owner.as_str() == "next").unwrap();
    assert_eq!(freed, [id("killed")]);
    nat.release(&id("next")).unwrap();
    assert_same(&setting.snapshot(), &before, "after it");
}

/// The other process of the test before. As a test, it does nothing.
#[test]
fn a_process_that_leases_and_waits() {
    let (Some(directory), Some(host)) =
        (env::var_os(DIRECTORY_VARIABLE), env::var_os(HOST_VARIABLE))
    else {
        return;
    };
    let host = HostNetwork::at(host).unwrap();
    let nat = Nat::open(directory, NatConfig::default(), host).unwrap();
    let _lease = nat.lease(&id("killed"), &[], everybody).unwrap();
    let mut stdout = io::stdout();
    writeln!(stdout, "\n{MARK}").unwrap();
    stdout.flush().unwrap();
    // Until it is killed, or nobody waits for it any more.
    io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn many_at_once_get_addresses_of_their_own() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let leased: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let nat = setting.nat();
                scope.spawn(move || {
                    let owner = id(&format!("n{number}"));
                    nat.lease(&owner, &[], everybody).unwrap().address()
                })
            })
            .collect();
        threads.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut distinct = leased.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "{leased:?}");
    std::thread::scope(|scope| {
        for number in 0..4 {
            let nat = setting.nat();
            scope.spawn(move || nat.release(&id(&format!("n{number}"))).unwrap());
        }
    });
    assert_same(&setting.snapshot(), &before, "after it");
}

#[test]
fn a_caller_in_another_network_takes_back_where_the_lease_was_made_and_leases_nothing() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let nat = setting.nat();
    nat.lease(&id("web"), &[], everybody).unwrap();
    nat.lease(&id("db"), &[], everybody).unwrap();
    let elsewhere = HostNetwork::at(setting.world.path()).unwrap();
    let elsewhere = Nat::open(setting.directory.path(), NatConfig::default(), elsewhere).unwrap();
    let world = setting.world.snapshot();
    let error = elsewhere.lease(&id("new"), &[], everybody).unwrap_err();
    assert!(matches!(error, Error::OtherHost { .. }), "{error}");
    assert!(error.hint().is_some());
    elsewhere.release(&id("web")).unwrap();
    assert!(
        setting.host.ip("link").contains("virtc0"),
        "one has it still"
    );
    elsewhere.release(&id("db")).unwrap();
    assert_same(&setting.snapshot(), &before, "released from elsewhere");
    assert_same(&setting.world.snapshot(), &world, "the other network");
}

const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const WORLD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

impl Setting {
    /// A host with IPv6, a default route of it, and no router.
    fn with_ipv6() -> Self {
        let setting = Self::new();
        for (side, address) in [(&setting.host, HOST6), (&setting.world, WORLD6)] {
            side.ip(&format!("addr add {address}/64 dev up0 nodad"));
        }
        setting
            .world
            .ip(&format!("route add fd76:6331:c7::/64 via {HOST6}"));
        setting
            .host
            .ip(&format!("-6 route add default via {WORLD6}"));
        // Nobody tells this host anything.
        setting.write("up0/accept_ra", "0");
        setting
    }

    fn read(&self, file: &str) -> String {
        let read = || std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{file}"));
        self.host.open().run(read).unwrap().trim().to_owned()
    }

    fn write(&self, file: &str, value: &str) {
        let write = || std::fs::write(format!("/proc/sys/net/ipv6/conf/{file}"), value);
        self.host.open().run(write).unwrap();
    }

    /// With what IPv6 has of it.
    fn snapshot6(&self) -> String {
        let files = ["all", "default", "up0", "lo"];
        let forwarding = files.map(|name| self.read(&format!("{name}/forwarding")));
        let routes = self.host.ip("-6 route show table all");
        format!("{}{routes}{forwarding:?}", self.snapshot())
    }
}

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
