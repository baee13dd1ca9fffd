use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, io};
use crate::namespace::Namespace;

/// A port of the host that leads to one of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Of which protocol.
    pub protocol: Protocol,
    /// On which address of the host; `0.0.0.0` for all of them.
    pub host_address: Ipv4Addr,
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
            host_address: Ipv4Addr::LOCALHOST,
            host_port,
            guest_port,
        }
    }

    /// Whether a packet could be meant for either.
    pub(super) fn collides(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && (self.host_address == other.host_address
                || self.host_address.is_unspecified()
                || other.host_address.is_unspecified())
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = SocketAddrV4::new(self.host_address, self.host_port.get());
        write!(f, "{address}/{}", self.protocol)
    }
}

/// Takes the ports, so that no program of the host has them, nor gets them while these are held.
/// What is sent to them goes to the machine before it could come to these.
pub(super) fn hold(host: &Namespace, ports: &[PublishedPort]) -> Result<Vec<OwnedFd>> {
    ports
        .iter()
        .map(|port| {
            host.run_io(|| take(port))
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

fn take(port: &PublishedPort) -> io::Result<OwnedFd> {
    let address = SocketAddrV4::new(port.host_address, port.host_port.get());
    match port.protocol {
        Protocol::Udp => UdpSocket::bind(address).map(OwnedFd::from),
        // Not one that listens: without the rules, nobody is to be let in.
        Protocol::Tcp => {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            bind(&socket, &address)?;
            Ok(socket)
        }
    }
}
