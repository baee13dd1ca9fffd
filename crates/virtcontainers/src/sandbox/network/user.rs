//! A network that a process of the host makes the guest's connections for: nothing on the host is
//! set up or changed.
//!
//! The process is `passt` where the host has it, which has no rights, or QEMU itself. Either would
//! lead a guest to the host's loopback, which only has to address its packets so; a filter in the
//! keeper takes them out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vc_agent_client::network::{GuestNetwork, InterfaceConfig, IpPrefix, RouteConfig};
use vc_config::UserBackend;
use vc_hypervisor::qemu::NicPlace;
use vc_hypervisor::{Detour, ForwardProtocol, Nic, NicBackend, NicFilter, PortForward};
use vc_launch::{Capability, LaunchSpec, Launcher, PassedFd, Program, ResourceLimit, User};
use vc_network::{AliasNetwork, Cidr, FrameFilter, Protocol, PublishedPort};
use vc_types::SandboxUsers;

use super::intended::MadeNetwork;
use super::way_out;
use crate::error::{Error, Result};
use crate::runtime::Shared;
use crate::sandbox::machine::Device;
use crate::sandbox::place::Place;
use crate::sandbox::process_log;

/// What logs and the state call the process.
const PASST: &str = "passt";

/// The number at which it finds its end of the connection with the VMM.
const PASST_FD: i32 = 3;

/// The machine's address, that of no other machine: each has a network of its own.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// The network's prefix.
const PREFIX: u8 = 24;

/// Who takes what leaves the network.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// Who asks the host's resolver.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// The machine's address of IPv6, with passt.
const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd76, 0x6331, 0xc8, 0, 0, 0, 0, 15);

/// The gateway of IPv6, with passt. Whoever of the host comes from its loopback address comes from
/// here.
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// The machine's address in QEMU's network of IPv6, whose other addresses are QEMU's own choice.
const QEMU_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 15);
const QEMU_GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
const QEMU_RESOLVER6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 3);
/// The prefix of either network of IPv6.
const PREFIX6: u8 = 64;

/// The machine's MAC: locally administered, and its address.
const MAC: [u8; 6] = [0x02, 0x76, 10, 0, 2, 15];

/// Bytes of the largest packet, where nothing but memory is between.
const PASST_MTU: u32 = 65_520;

/// The same for QEMU's stack.
const QEMU_MTU: u32 = 1500;

/// The kernel's word on ports that need a right.
const FIRST_FREE_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// The same where it does not say.
const FIRST_FREE_PORT_DEFAULT: u16 = 1024;

/// Who makes the connections, and which ports of the host lead to the guest.
pub(crate) struct UserPlan {
    passt: Option<PathBuf>,
    /// Whether the host has a way by IPv6, and so the guest.
    ipv6: bool,
    ports: Vec<PublishedPort>,
    /// Whether a port is among them that not everybody may take.
    low: bool,
}

impl UserPlan {
    /// # Errors
    ///
    /// [`Error::Missing`] without a `passt` that the configuration wants, [`Error::Network`] for a
    /// port that is taken or has to lead to a guest without IPv6, [`Error::LowPort`] for one that
    /// QEMU must not take, [`Error::NoAnswers`] for one that is of no use with passt,
    /// [`Error::PortsAlike`] for two that would be taken for each other.
    pub(super) fn of(runtime: &Shared, ports: &[PublishedPort]) -> Result<Self> {
        let settings = &runtime.config.network;
        let found = settings.find_passt();
        let first_free = first_free_port();
        let low = ports.iter().find(|port| port.host_port.get() < first_free);
        let passt = match settings.user_backend {
            UserBackend::Qemu => None,
            UserBackend::Passt if found.is_none() => {
                return Err(Error::Missing {
                    what: PASST,
                    tried: vc_config::Network::PASST_CANDIDATES.join(", "),
                });
            }
            UserBackend::Passt => found,
            // Without a way to anywhere, it gives up.
            UserBackend::Auto => {
                let better = |_: &PathBuf| !is_for_qemu(ports, low.is_some());
                found.filter(|_| way_out::by_ipv4()).filter(better)
            }
        };
        // With IPv6, QEMU stops reading what is sent to its ports of UDP once it had to keep some.
        let keeps = passt.is_none() && ports.iter().any(is_datagrams);
        let ipv6 = way_out::by_ipv6() && !keeps;
        if let Some(port) = ports.iter().find(|port| port.host_address.is_ipv6()) {
            let reason = match (&passt, ipv6) {
                (Some(_), true) => None,
                (Some(_), false) => Some("the host has no default route of it"),
                (None, _) => Some("QEMU's own network stack publishes none (passt does)"),
            };
            if let Some(reason) = reason {
                return Err(Error::Network(vc_network::Error::NoIpv6 {
                    port: *port,
                    reason: reason.to_owned(),
                }));
            }
        }
        if let (None, Some(port)) = (&passt, low) {
            return Err(Error::LowPort { port: *port });
        }
        for (number, port) in ports.iter().enumerate() {
            if passt.is_some() && is_datagrams(port) && port.host_address.is_loopback() {
                return Err(Error::NoAnswers { port: *port });
            }
            check_others(port, &ports[..number], passt.is_some())?;
            check_free(port)?;
        }
        Ok(Self {
            passt,
            ipv6,
            low: low.is_some(),
            ports: ports.to_vec(),
        })
    }

    /// Starts what makes the connections.
    ///
    /// # Errors
    ///
    /// [`Error::Launch`], and [`Error::System`] without descriptors.
    pub(super) async fn make(self, launcher: &Launcher, place: &Place) -> Result<MadeNetwork> {
        let mtu = match self.passt {
            Some(_) => PASST_MTU,
            None => QEMU_MTU,
        };
        let (backend, device) = match &self.passt {
            Some(program) => {
                let (socket, ours) = connected()?;
                let (other, theirs) = connected()?;
                FrameFilter::default().between(ours, theirs)?;
                let log = process_log::start(place.path(), place.id(), PASST)?;
                let mut spec = LaunchSpec::new(PASST, Program::Path(program.display().to_string()));
                spec.args = self.passt_arguments();
                spec.env = vec![("LC_ALL".into(), "C".into())];
                let user = SandboxUsers::of(place.id()).network();
                spec.user = Some(User {
                    uid: user,
                    gid: user,
                    groups: Vec::new(),
                });
                spec.capabilities = Some(match self.low {
                    true => vec![Capability::NetBindService],
                    false => Vec::new(),
                });
                spec.limits = vec![ResourceLimit::CoreBytes(0)];
                let passed = vec![PassedFd::at(PASST_FD, other), PassedFd::output(log)];
                let process = launcher.launch(spec, passed).await?;
                let name = "process of the network";
                (
                    NicBackend::Stream { socket },
                    Some(Device { name, process }),
                )
            }
            None => {
                let forwards = self.ports.iter().map(forward).collect();
                let filter = Some(before_qemu()?);
                let backend = NicBackend::User {
                    forwards,
                    ipv6: self.ipv6,
                    filter,
                };
                (backend, None)
            }
        };
        Ok(MadeNetwork {
            attached: None,
            guest: Some(guest(mtu, self.network6())),
            nics: vec![Nic {
                id: "net0".to_owned(),
                mac: MAC,
                queues: 1,
                backend,
            }],
            device,
        })
    }

    /// The guest's address of IPv6 and its gateway.
    fn network6(&self) -> Option<(Ipv6Addr, Ipv6Addr)> {
        let network = match self.passt {
            Some(_) => (ADDRESS6, GATEWAY6),
            None => (QEMU_ADDRESS6, QEMU_GATEWAY6),
        };
        self.ipv6.then_some(network)
    }

    fn passt_arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = [
            "--foreground",
            "--stderr",
            "--quiet",
            "--no-dhcp",
            "--no-dhcpv6",
            "--no-ra",
            // The gateway's address is not the host's loopback. It would have to be for answers to
            // datagrams of the host, but the guest could choose then where its own ones go.
            "--no-map-gw",
        ]
        .map(str::to_owned)
        .into();
        if self.ipv6 {
            for (name, value) in [("--address", ADDRESS6), ("--gateway", GATEWAY6)] {
                arguments.extend([name.to_owned(), value.to_string()]);
            }
        } else {
            arguments.push("--ipv4-only".to_owned());
        }
        for (name, value) in [
            ("--fd", PASST_FD.to_string()),
            ("--address", ADDRESS.to_string()),
            ("--netmask", PREFIX.to_string()),
            ("--gateway", GATEWAY.to_string()),
            ("--dns-forward", RESOLVER.to_string()),
        ] {
            arguments.extend([name.to_owned(), value]);
        }
        for port in &self.ports {
            let flag = match port.protocol {
                Protocol::Tcp => "--tcp-ports",
                Protocol::Udp => "--udp-ports",
            };
            let (address, host, guest) = (port.host_address, port.host_port, port.guest_port);
            arguments.extend([flag.to_owned(), format!("{address}/{host}:{guest}")]);
        }
        arguments
    }
}

/// Whether QEMU publishes what passt would publish in vain: with `--no-map-gw`, nobody of the host
/// itself gets an answer to a datagram.
fn is_for_qemu(ports: &[PublishedPort], low: bool) -> bool {
    let address = |port: &PublishedPort| port.host_address;
    let is_asked_by_host = |port| {
        is_datagrams(port) && (address(port).is_loopback() || address(port).is_unspecified())
    };
    let can = !low && ports.iter().all(|port| address(port).is_ipv4());
    can && ports.iter().any(is_asked_by_host)
}

fn is_datagrams(port: &PublishedPort) -> bool {
    port.protocol == Protocol::Udp
}

/// What is between the guest and QEMU's own stack, which takes each address of its networks for its
/// host's loopback, and that of its resolver for the host's resolver, whatever the port.
fn before_qemu() -> Result<NicFilter> {
    let filter = FrameFilter::with_aliases(&[
        AliasNetwork {
            network: Cidr::new(GATEWAY.into(), PREFIX)?,
            resolver: RESOLVER.into(),
        },
        AliasNetwork {
            network: Cidr::new(QEMU_GATEWAY6.into(), PREFIX6)?,
            resolver: QEMU_RESOLVER6.into(),
        },
    ]);
    let (from_out, from) = connected()?;
    let (from_back, onwards) = connected()?;
    filter.from_guest(from, onwards)?;
    let (to_out, to) = connected()?;
    let (to_back, inwards) = connected()?;
    filter.to_guest(to, inwards)?;
    Ok(NicFilter {
        from_guest: Detour {
            out: from_out,
            back: from_back,
        },
        to_guest: Detour {
            out: to_out,
            back: to_back,
        },
    })
}

fn connected() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    pair.map_err(|errno| Error::System {
        attempt: "make a connection for a network".into(),
        source: errno.into(),
    })
}

fn forward(port: &PublishedPort) -> PortForward {
    PortForward {
        protocol: match port.protocol {
            Protocol::Tcp => ForwardProtocol::Tcp,
            Protocol::Udp => ForwardProtocol::Udp,
        },
        host: SocketAddr::from((port.host_address, port.host_port.get())),
        guest_port: port.guest_port.get(),
    }
}

/// What the guest is to have: addresses are known, nobody needs to ask for them.
fn guest(mtu: u32, ipv6: Option<(Ipv6Addr, Ipv6Addr)>) -> GuestNetwork {
    let device = "eth0".to_owned();
    let address = |address, length| IpPrefix { address, length };
    let mut addresses = vec![address(IpAddr::V4(ADDRESS), PREFIX)];
    addresses.extend(ipv6.map(|(own, _)| address(IpAddr::V6(own), PREFIX6)));
    let mut gateways = vec![IpAddr::V4(GATEWAY)];
    gateways.extend(ipv6.map(|(_, gateway)| IpAddr::V6(gateway)));
    let default = |gateway: IpAddr| RouteConfig::default_by(gateway, device.as_str());
    GuestNetwork {
        interfaces: vec![InterfaceConfig {
            pci_path: NicPlace::Fixed(0).pci_path(),
            name: device.clone(),
            mac: Some(MAC),
            mtu: Some(mtu),
            addresses,
            without_route: Vec::new(),
            no_arp: false,
        }],
        routes: gateways.into_iter().map(default).collect(),
        neighbours: Vec::new(),
    }
}

/// Checks that a port is not taken for one of those before it.
fn check_others(port: &PublishedPort, before: &[PublishedPort], passt: bool) -> Result<()> {
    let number = |other: &&PublishedPort| passt && other.host_port == port.host_port;
    // QEMU has one family of them.
    let datagrams = |other: &&PublishedPort| {
        port.protocol == Protocol::Udp
            && other.guest_port == port.guest_port
            && other.host_address.is_ipv4() == port.host_address.is_ipv4()
    };
    let same_protocol = |other: &&PublishedPort| other.protocol == port.protocol;
    let others = || before.iter().filter(same_protocol);
    let refuse = |other: &PublishedPort, reason| {
        Err(Error::PortsAlike {
            port: *other,
            other: *port,
            reason,
        })
    };
    if let Some(other) = others().find(number) {
        return refuse(
            other,
            "passt leads a number to the machine from one address only",
        );
    }
    if let Some(other) = others().find(datagrams) {
        let reason = "whoever makes the connections sends all datagrams of a machine's port by one";
        return refuse(other, reason);
    }
    Ok(())
}

/// Whoever takes it finds it taken later too, but says less of it.
fn check_free(port: &PublishedPort) -> Result<()> {
    port.check_free().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Network(vc_network::Error::PortTaken {
            port: *port,
            owner: None,
        }),
        _ => Error::System {
            attempt: format!("listen at {port}"),
            source,
        },
    })
}

fn first_free_port() -> u16 {
    let text = std::fs::read_to_string(FIRST_FREE_PORT).unwrap_or_default();
    text.trim().parse().unwrap_or(FIRST_FREE_PORT_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(ports: &[&PublishedPort]) -> UserPlan {
        UserPlan {
            passt: Some("/usr/bin/passt".into()),
            ports: ports.iter().map(|port| **port).collect(),
            ipv6: false,
            low: false,
        }
    }

    #[test]
    fn every_port_is_an_argument() {
        let number = |number| std::num::NonZeroU16::new(number).unwrap();
        let tcp = PublishedPort::on_loopback(Protocol::Tcp, number(8080), number(80));
        let udp = PublishedPort {
            protocol: Protocol::Udp,
            host_address: Ipv4Addr::UNSPECIFIED.into(),
            ..tcp
        };
        let line = plan(&[&tcp, &udp]).passt_arguments().join(" ");
        assert!(line.contains("--ipv4-only"), "{line}");
        assert!(line.contains("--no-map-gw"), "{line}");
        assert!(line.contains("--tcp-ports 127.0.0.1/8080:80"), "{line}");
        assert!(line.contains("--udp-ports 0.0.0.0/8080:80"), "{line}");
        let tcp6 = PublishedPort {
            host_address: Ipv6Addr::LOCALHOST.into(),
            ..tcp
        };
        let with = UserPlan {
            ipv6: true,
            ..plan(&[&tcp6])
        };
        let line = with.passt_arguments().join(" ");
        assert!(line.contains("--no-map-gw"), "{line}");
        assert!(!line.contains("--ipv4-only"), "{line}");
        assert!(line.contains("--gateway fe80::2"), "{line}");
        assert!(line.contains("--tcp-ports ::1/8080:80"), "{line}");
    }

    #[test]
    fn datagrams_of_the_host_itself_are_for_qemu_where_it_can() {
        let port = |protocol, address: &str| PublishedPort {
            protocol,
            host_address: address.parse().unwrap(),
            ..PublishedPort::on_loopback(protocol, 8053.try_into().unwrap(), 53.try_into().unwrap())
        };
        for (address, expected) in [
            ("127.0.0.1", true),
            ("0.0.0.0", true),
            ("10.7.1.2", false),
            ("::1", false),
            ("::", false),
        ] {
            let udp = port(Protocol::Udp, address);
            assert_eq!(is_for_qemu(&[udp], false), expected, "{address}");
            assert!(!is_for_qemu(&[udp], true), "{address}");
            assert!(!is_for_qemu(&[port(Protocol::Tcp, address)], false));
            let beside = [udp, port(Protocol::Tcp, "::1")];
            assert!(!is_for_qemu(&beside, false), "{address}");
        }
    }

    #[test]
    fn ports_that_would_be_taken_for_each_other_are_refused() {
        let port = |protocol, address: &str, host: u16, guest: u16| PublishedPort {
            protocol,
            host_address: address.parse().unwrap(),
            host_port: host.try_into().unwrap(),
            guest_port: guest.try_into().unwrap(),
        };
        let first = port(Protocol::Udp, "127.0.0.1", 8053, 53);
        for (other, with_passt, with_qemu) in [
            (port(Protocol::Udp, "::1", 8053, 53), false, true),
            (port(Protocol::Udp, "::1", 8054, 53), true, true),
            (port(Protocol::Udp, "::1", 8053, 54), false, true),
            (port(Protocol::Udp, "127.0.0.2", 8054, 53), false, false),
            (port(Protocol::Tcp, "::1", 8053, 53), true, true),
        ] {
            assert_eq!(check_others(&other, &[first], true).is_ok(), with_passt);
            assert_eq!(check_others(&other, &[first], false).is_ok(), with_qemu);
        }
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port().try_into().unwrap();
        let port = PublishedPort::on_loopback(Protocol::Tcp, taken, taken);
        let error = check_free(&port).unwrap_err().to_string();
        assert!(error.contains(&port.to_string()), "{error}");
        drop(listener);
        check_free(&port).unwrap();
    }
}
