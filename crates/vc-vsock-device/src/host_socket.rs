//! The host's side of a connection: a Unix stream socket and what is asked of it.
//!
//! Every call here returns at once. Events are edge-triggered: a socket is read until it has
//! nothing, and looked at for room only while something waits to be written.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::limits::DISCARD_READS_MAX;

/// A connected socket that is registered for events.
#[derive(Debug)]
pub(crate) struct HostSocket {
    fd: OwnedFd,
    token: u64,
    wants_room: bool,
}

/// What looking at a socket without reading found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Peeked {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The end, or an error.
    End,
}

impl HostSocket {
    /// Registers a connected socket; its events carry `token`.
    ///
    /// # Errors
    ///
    /// What `epoll_ctl` says.
    pub(crate) fn register(
        fd: OwnedFd,
        epoll: BorrowedFd<'_>,
        token: u64,
    ) -> rustix::io::Result<Self> {
        epoll::add(epoll, &fd, EventData::new_u64(token), events(false))?;
        Ok(Self {
            fd,
            token,
            wants_room: false,
        })
    }

    /// Says whether an event is wanted when there is room to write.
    pub(crate) fn want_room(&mut self, epoll: BorrowedFd<'_>, wanted: bool) {
        if self.wants_room != wanted {
            self.wants_room = wanted;
            self.look_again(epoll);
        }
    }

    /// Makes what is the case now an event once more.
    pub(crate) fn look_again(&self, epoll: BorrowedFd<'_>) {
        let token = EventData::new_u64(self.token);
        // The socket is in the set, so that this cannot fail.
        let _ = epoll::modify(epoll, &self.fd, token, events(self.wants_room));
    }

    /// Writes what the socket takes at once; 0 when it is full.
    ///
    /// # Errors
    ///
    /// [`Errno`] when the host program reads no more.
    pub(crate) fn write(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        loop {
            match rustix::net::send(&self.fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                other => return other,
            }
        }
    }

    /// Reads without taking.
    pub(crate) fn peek(&self, bytes: &mut [u8]) -> Peeked {
        loop {
            match rustix::net::recv(&self.fd, &mut *bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Peeked::Nothing,
                Ok((0, _)) | Err(_) => return Peeked::End,
                Ok((count, _)) => return Peeked::Bytes(count),
            }
        }
    }

    /// Takes `count` bytes that were peeked at.
    ///
    /// # Errors
    ///
    /// What `recv` says, or `PIPE` when fewer came.
    pub(crate) fn take(&self, bytes: &mut [u8]) -> rustix::io::Result<()> {
        let wanted = bytes.len();
        let (count, _) = rustix::net::recv(&self.fd, bytes, RecvFlags::DONTWAIT)?;
        if count == wanted {
            Ok(())
        } else {
            Err(Errno::PIPE)
        }
    }

    /// Gives the host program an end of file after what was written.
    pub(crate) fn end_writes(&self) {
        // Not connected any more: then there is nobody to tell.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
    }

    /// Makes the host program's writes fail.
    pub(crate) fn end_reads(&self) {
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Read);
    }

    /// Closes; see [`close`].
    pub(crate) fn close(self) {
        close(self.fd);
    }
}

impl AsFd for HostSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn events(room: bool) -> EventFlags {
    let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    if room { flags | EventFlags::OUT } else { flags }
}

/// Connects to the socket `vsock.sock_<port>` in a directory.
///
/// # Errors
///
/// What `connect` says; a listener whose queue is full refuses.
pub(crate) fn dial(dir: BorrowedFd<'_>, port: u32) -> rustix::io::Result<OwnedFd> {
    // The length of a socket's name is limited; through /proc the directory's own does not count.
    let path = format!("/proc/self/fd/{}/vsock.sock_{port}", dir.as_raw_fd());
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// Closes a socket. What the host program sent and nobody wants is thrown away first: closing
/// with unread bytes would turn the end of file, that the other side may not have read yet, into
/// an error.
pub(crate) fn close(socket: OwnedFd) {
    let _ = rustix::net::shutdown(&socket, Shutdown::Both);
    let mut scratch = [0; 16 << 10];
    for _ in 0..DISCARD_READS_MAX {
        match rustix::net::recv(&socket, &mut scratch, RecvFlags::DONTWAIT) {
            Ok((0, _)) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
}

/// Takes the next connection of a listening socket, if one waits.
///
/// # Errors
///
/// What `accept` says, except that nothing waits.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> rustix::io::Result<Option<OwnedFd>> {
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::accept_with(listener, flags) {
            Ok(socket) => return Ok(Some(socket)),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}
