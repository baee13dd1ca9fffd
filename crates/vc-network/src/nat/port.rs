use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;

use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
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
        self.bound(false)
    }

    /// Looks whether a program could listen at the port, as one that takes it over from another does
    /// (`SO_REUSEADDR`): connections that have ended and linger on (`TIME_WAIT`) are in nobody's way.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AddrInUse`] when somebody has it.
    pub fn check_free(&self) -> io::Result<()> {
        let socket = self.bound(true)?;
        match self.protocol {
            // Only now the kernel looks for others that listen.
            Protocol::Tcp => Ok(listen(&socket, 0)?),
            Protocol::Udp => Ok(()),
        }
    }

    fn bound(&self, reuse: bool) -> io::Result<OwnedFd> {
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
        if reuse && self.protocol == Protocol::Tcp {
            set_socket_reuseaddr(&socket, true)?;
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_port_is_free_while_ended_connections_linger_and_not_while_somebody_listens_or_holds_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let number = address.port().try_into().unwrap();
        let port = PublishedPort::on_loopback(Protocol::Tcp, number, number);
        let in_use = |result: io::Result<()>| {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        };
        in_use(port.check_free());
        // The side that closes first keeps the connection for a minute.
        let mut client = TcpStream::connect(address).unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop((client, listener));
        in_use(port.take().map(drop));
        port.check_free().unwrap();

        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = free.local_addr().unwrap().port().try_into().unwrap();
        drop(free);
        let port = PublishedPort::on_loopback(Protocol::Tcp, number, number);
        let held = port.take().unwrap();
        in_use(port.check_free());
        drop(held);
        port.check_free().unwrap();
    }
}
