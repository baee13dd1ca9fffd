//! Connections that are made inside a namespace to its own addresses.

mod dial;
mod relay;
mod undo;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use rustix::io::Errno;
use rustix::net::sockopt::{ip_original_dst, ipv6_original_dst};

pub use dial::{datagrams_inside, dial_inside};
pub use relay::{LoopbackListeners, LoopbackRelay};
pub use undo::LoopbackUndo;

use crate::error::{Result, io};

/// The table of nftables in the namespace.
const TABLE: &str = "inet virtcontainers";

/// The mark of sockets that are led nowhere else. Nobody else is known to use it.
const OWN_MARK: u32 = 0x7663_6c6f;

/// To which address and port the client of an accepted connection has connected.
///
/// For a connection that was made to the listener itself, it is the listener's address.
///
/// # Errors
///
/// [`crate::Error::Io`] when the kernel does not say.
pub fn original_destination(stream: &TcpStream) -> Result<SocketAddr> {
    let own = stream
        .local_addr()
        .map_err(io("ask for the address of", "a connection"))?;
    let found = match own {
        SocketAddr::V4(_) => ip_original_dst(stream).map(SocketAddr::V4),
        SocketAddr::V6(_) => ipv6_original_dst(stream).map(SocketAddr::V6),
    };
    match found {
        Ok(address) => Ok(address),
        // It was not led here by a rule.
        Err(Errno::NOENT | Errno::NOPROTOOPT) => Ok(own),
        Err(errno) => Err(io("ask for the first destination of", "a connection")(
            io::Error::from(errno),
        )),
    }
}

/// The loopback address of each family; the first is there in every namespace.
const LOOPBACK: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
