use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;

use rustix::net::sockopt::set_ipv6_v6only;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, io};
use crate::namespace::Namespace;

/// A port of the host that leads to one of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Of which protocol.
    pub protocol: Protocol,
    /// On which address of the host; `0.0.0.0` for all of IPv4, `::` for all of IPv6.
    pub host_address: IpAddr,
    /// The host's port.
    pub host_port: NonZeroU16,
    /// The machine's port.
    pub guest_port: NonZeroU16,
}

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl PublishedPort {
    /// One on the loopback address `127.0.0.1`, which nobody but the host itself reaches.
    pub fn on_loopback(protocol: Protocol, host_port: NonZeroU16, guest_port: NonZeroU16) -> Self {
        Self {
            protocol,
            host_address: Ipv4Addr::LOCALHOST.into(),
            host_port,
            guest_port,
        }
    }

    /// Whether it is also one of the host's loopback address.
    pub(super) fn is_on_loopback(&self) -> bool {
        self.host_address.is_loopback() || self.host_address.is_unspecified()
    }

    /// Takes the port for the calling thread's network, without listening: nobody is let in by it,
    /// and no program of the host has it meanwhile. The other family's port of the same number is
    /// another one.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AddrInUse`] when somebody has it.
    ///
    /// ```
    /// use vc_network::{Protocol, PublishedPort};
    ///
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let taken = listener.local_addr()?.port().try_into()?;
    /// assert!(PublishedPort::on_loopback(Protocol::Tcp, taken, taken).take().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take(&self) -> io::Result<OwnedFd> {
        let address = SocketAddr::new(self.host_address, self.host_port.get());
        let kind = match self.protocol {
            Protocol::Udp => SocketType::DGRAM,
            // Not one that listens: without the rules, nobody is to be let in.
            Protocol::Tcp => SocketType::STREAM,
        };
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        if address.is_ipv6() {
            set_ipv6_v6only(&socket, true)?;
        }
        bind(&socket, &address)?;
        Ok(socket)
    }

    /// Whether a packet could be meant for either.
    pub(super) fn collides(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && self.host_address.is_ipv4() == other.host_address.is_ipv4()
            && (self.host_address == other.host_address
                || self.host_address.is_unspecified()
                || other.host_address.is_unspecified())
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = SocketAddr::new(self.host_address, self.host_port.get());
        write!(f, "{address}/{}", self.protocol)
    }
}

/// Takes the ports, so that no program of the host has them, nor gets them while these are held.
/// What is sent to them goes to the machine before it could come to these.
pub(super) fn hold(host: &Namespace, ports: &[PublishedPort]) -> Result<Vec<OwnedFd>> {
    ports
        .iter()
        .map(|port| {
            host.run_io(|| port.take())
                .map_err(|error| match error.kind() {
                    io::ErrorKind::AddrInUse => Error::PortTaken {
                        port: *port,
                        owner: None,
                    },
                    _ => io("take the port", port)(error),
                })
        })
        .collect()
}
