//! A host with a world around it, and what goes between machines and them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vc_network::{HostNetwork, Lease, Namespace, Nat, NatConfig, Protocol, PublishedPort};
use vc_types::SandboxId;

use crate::common::TestNamespace;

pub(super) const CYCLES: usize = 5;

/// How long what must come is waited for.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// How long what must not come is waited for.
pub(super) const SILENCE: Duration = Duration::from_millis(300);

/// After which time a packet is sent again: the kernel opens a new port of a bridge a moment later.
pub(super) const RESEND: Duration = Duration::from_millis(50);

pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(super) const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

pub(super) const DIRECTORY_VARIABLE: &str = "VC_NETWORK_TEST_NAT_DIRECTORY";
pub(super) const HOST_VARIABLE: &str = "VC_NETWORK_TEST_NAT_HOST";
pub(super) const MARK: &str = "leased";

/// A host that is connected with the world, and no router.
pub(super) struct Setting {
    pub(super) host: TestNamespace,
    pub(super) world: TestNamespace,
    pub(super) directory: TempDir,
}

impl Setting {
    pub(super) fn new() -> Self {
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

    pub(super) fn nat(&self) -> Nat {
        self.nat_with(NatConfig::default())
    }

    pub(super) fn nat_with(&self, config: NatConfig) -> Nat {
        let host = HostNetwork::at(self.host.path()).unwrap();
        Nat::open(self.directory.path(), config, host).unwrap()
    }

    pub(super) fn forwarding(&self) -> String {
        let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
        self.host.open().run(read).unwrap().trim().to_owned()
    }

    pub(super) fn set_forwarding(&self, value: &str) {
        let write = || std::fs::write("/proc/sys/net/ipv4/ip_forward", value);
        self.host.open().run(write).unwrap();
    }

    /// All of the host that a lease could change, and the files.
    pub(super) fn snapshot(&self) -> String {
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

pub(super) const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(super) const WORLD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

impl Setting {
    /// A host with IPv6, a default route of it, and no router.
    pub(super) fn with_ipv6() -> Self {
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

    pub(super) fn read(&self, file: &str) -> String {
        let read = || std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{file}"));
        self.host.open().run(read).unwrap().trim().to_owned()
    }

    pub(super) fn write(&self, file: &str, value: &str) {
        let write = || std::fs::write(format!("/proc/sys/net/ipv6/conf/{file}"), value);
        self.host.open().run(write).unwrap();
    }

    /// With what IPv6 has of it.
    pub(super) fn snapshot6(&self) -> String {
        let files = ["all", "default", "up0", "lo"];
        let forwarding = files.map(|name| self.read(&format!("{name}/forwarding")));
        let routes = self.host.ip("-6 route show table all");
        format!("{}{routes}{forwarding:?}", self.snapshot())
    }
}

pub(super) fn id(name: &str) -> SandboxId {
    SandboxId::new(name).unwrap()
}

pub(super) fn everybody(_: &SandboxId) -> bool {
    true
}

pub(super) fn inside(lease: &Lease) -> Namespace {
    Namespace::open(lease.namespace()).unwrap()
}

pub(super) fn listener(
    namespace: &Namespace,
    address: impl Into<IpAddr>,
    port: u16,
) -> TcpListener {
    let address = SocketAddr::new(address.into(), port);
    let bound = namespace.run(|| TcpListener::bind(address));
    bound.unwrap()
}

pub(super) fn connect(
    namespace: &Namespace,
    address: impl Into<IpAddr>,
    port: u16,
) -> io::Result<TcpStream> {
    let to = SocketAddr::new(address.into(), port);
    // The outer error is that of the namespace.
    let connected = namespace.run(|| Ok(TcpStream::connect_timeout(&to, LIMIT)));
    connected.unwrap()
}

/// Connects, and gives back from where the listener sees it after a byte came each way.
pub(super) fn exchange(
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
pub(super) fn udp_arrives(
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

pub(super) fn udp(namespace: &Namespace, address: impl Into<IpAddr>, port: u16) -> UdpSocket {
    let address = address.into();
    namespace.run(|| UdpSocket::bind((address, port))).unwrap()
}

pub(super) fn port(
    protocol: Protocol,
    address: impl Into<IpAddr>,
    host: u16,
    guest: u16,
) -> PublishedPort {
    PublishedPort {
        protocol,
        host_address: address.into(),
        host_port: NonZeroU16::new(host).unwrap(),
        guest_port: NonZeroU16::new(guest).unwrap(),
    }
}

/// Runs a program inside.
pub(super) fn run(namespace: &Namespace, command: &str) {
    let words: Vec<_> = command.split_whitespace().collect();
    let status = namespace.run(|| Command::new(words[0]).args(&words[1..]).status());
    assert!(status.unwrap().success(), "{command}");
}
