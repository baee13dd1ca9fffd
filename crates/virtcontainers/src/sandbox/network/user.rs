//! A network that a process of the host makes the guest's connections for: nothing on the host is
//! set up or changed.
//!
//! The process is `passt` where the host has it, which has no rights, or QEMU itself. Either would
//! lead a guest to the host's loopback, which only has to address its packets so; a filter in the
//! keeper takes them out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vc_agent_client::network::{GuestNetwork, InterfaceConfig, IpPrefix, RouteConfig};
use vc_config::UserBackend;
use vc_hypervisor::qemu::nic_pci_path;
use vc_hypervisor::{Detour, ForwardProtocol, Nic, NicBackend, NicFilter, PortForward};
use vc_launch::{Capability, LaunchSpec, Launcher, PassedFd, Program, ResourceLimit, User};
use vc_network::{AliasNetwork, Cidr, FrameFilter, Protocol, PublishedPort};
use vc_types::SandboxUsers;

use super::intended::MadeNetwork;
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

/// The same of QEMU's network of IPv6, which it has without being asked.
const QEMU_GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
const QEMU_RESOLVER6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 3);
const QEMU_PREFIX6: u8 = 64;

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

/// The routes of the caller's network.
const ROUTES: &str = "/proc/thread-self/net/route";

/// Who makes the connections, and which ports of the host lead to the guest.
pub(crate) struct UserPlan {
    passt: Option<PathBuf>,
    ports: Vec<PublishedPort>,
    /// Whether a port is among them that not everybody may take.
    low: bool,
}

impl UserPlan {
    /// # Errors
    ///
    /// [`Error::Missing`] without a `passt` that the configuration wants, [`Error::Network`] for a
    /// port that is taken, [`Error::LowPort`] for one that QEMU must not take.
    pub(super) fn of(runtime: &Shared, ports: &[PublishedPort]) -> Result<Self> {
        let settings = &runtime.config.network;
        let found = settings.find_passt();
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
            UserBackend::Auto => found.filter(|_| has_default_route()),
        };
        let first_free = first_free_port();
        let low = ports.iter().find(|port| port.host_port.get() < first_free);
        if let (None, Some(port)) = (&passt, low) {
            return Err(Error::LowPort { port: *port });
        }
        for port in ports {
            check_free(port)?;
        }
        Ok(Self {
            passt,
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
                (NicBackend::User { forwards, filter }, None)
            }
        };
        Ok(MadeNetwork {
            attached: None,
            guest: Some(guest(mtu)),
            nics: vec![Nic {
                id: "net0".to_owned(),
                mac: MAC,
                queues: 1,
                backend,
            }],
            device,
        })
    }

    fn passt_arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = [
            "--foreground",
            "--stderr",
            "--quiet",
            "--ipv4-only",
            "--no-dhcp",
            // The gateway's address is not the host's loopback.
            "--no-map-gw",
        ]
        .map(str::to_owned)
        .into();
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

/// What is between the guest and QEMU's own stack, which takes each address of its networks for its
/// host's loopback, and that of its resolver for the host's resolver, whatever the port.
fn before_qemu() -> Result<NicFilter> {
    let filter = FrameFilter::with_aliases(&[
        AliasNetwork {
            network: Cidr::new(GATEWAY.into(), PREFIX)?,
            resolver: RESOLVER.into(),
        },
        AliasNetwork {
            network: Cidr::new(QEMU_GATEWAY6.into(), QEMU_PREFIX6)?,
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
fn guest(mtu: u32) -> GuestNetwork {
    let device = "eth0".to_owned();
    GuestNetwork {
        interfaces: vec![InterfaceConfig {
            pci_path: nic_pci_path(0),
            name: device.clone(),
            mac: Some(MAC),
            mtu: Some(mtu),
            addresses: vec![IpPrefix {
                address: IpAddr::V4(ADDRESS),
                length: PREFIX,
            }],
            without_route: Vec::new(),
            no_arp: false,
        }],
        routes: vec![RouteConfig {
            destination: None,
            ipv6: false,
            gateway: Some(IpAddr::V4(GATEWAY)),
            on_link: false,
            source: None,
            scope: 0,
            mtu: None,
            metric: None,
            device,
        }],
        neighbours: Vec::new(),
    }
}

/// Whoever takes it finds it taken later too, but says less of it.
fn check_free(port: &PublishedPort) -> Result<()> {
    let address = SocketAddrV4::new(port.host_address, port.host_port.get());
    let bound = match port.protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
    };
    bound.map_err(|source| match source.kind() {
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

fn has_default_route() -> bool {
    let text = std::fs::read_to_string(ROUTES).unwrap_or_default();
    // A line each: interface, destination, gateway, …
    let mut lines = text.lines().skip(1);
    lines.any(|line| line.split_whitespace().nth(1) == Some("00000000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(ports: &[&PublishedPort]) -> UserPlan {
        UserPlan {
            passt: Some("/usr/bin/passt".into()),
            ports: ports.iter().map(|port| **port).collect(),
            low: false,
        }
    }

    #[test]
    fn every_port_is_an_argument() {
        let number = |number| std::num::NonZeroU16::new(number).unwrap();
        let tcp = PublishedPort::on_loopback(Protocol::Tcp, number(8080), number(80));
        let udp = PublishedPort {
            protocol: Protocol::Udp,
            host_address: Ipv4Addr::UNSPECIFIED,
            ..tcp
        };
        let line = plan(&[&tcp, &udp]).passt_arguments().join(" ");
        assert!(line.contains("--no-map-gw"), "{line}");
        assert!(line.contains("--tcp-ports 127.0.0.1/8080:80"), "{line}");
        assert!(line.contains("--udp-ports 0.0.0.0/8080:80"), "{line}");
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port().try_into().unwrap();
        let port = PublishedPort::on_loopback(Protocol::Tcp, taken, taken);
        let error = check_free(&port).unwrap_err().to_string();
        assert!(error.contains(&port.to_string()), "{error}");
        drop(listener);
        check_free(&port).unwrap();
    }
}
