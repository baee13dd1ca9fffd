use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::Mark};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::OWN_MARK;
use crate::error::{Result, io};
use crate::namespace::Namespace;

/// Connects to an address inside the namespace, past a relay of its loopback addresses: to a
/// resolver, such as `127.0.0.11:53`, that lives there and not in the machine. Waits for at most
/// `limit`.
///
/// # Errors
///
/// [`crate::Error::Io`] when there is no connection within the limit.
pub fn dial_inside(namespace: &Namespace, to: SocketAddr, limit: Duration) -> Result<TcpStream> {
    namespace
        .run_io(|| dial(to, limit))
        .map_err(io("connect inside the namespace to", to))
}

/// A socket inside the namespace whose datagrams go to one address and come from there, past a relay
/// of its loopback addresses.
///
/// # Errors
///
/// [`crate::Error::Io`] when there is no way to the address.
pub fn datagrams_inside(namespace: &Namespace, to: SocketAddr) -> Result<UdpSocket> {
    let connected = namespace.run_io(|| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket: OwnedFd = socket_with(family_of(to), SocketType::DGRAM, flags, None)?;
        setsockopt(&socket, Mark, &OWN_MARK)?;
        connect(&socket, &to)?;
        Ok(UdpSocket::from(socket))
    });
    connected.map_err(io("ask inside the namespace", to))
}

fn family_of(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

fn dial(to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(family_of(to), SocketType::STREAM, flags, None)?;
    setsockopt(&socket, Mark, &OWN_MARK)?;
    match connect(&socket, &to) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
            let mut polled = [PollFd::new(&socket, PollFlags::OUT)];
            if poll(&mut polled, Some(&limit))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            socket_error(&socket)??;
        }
        Err(errno) => return Err(errno.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
