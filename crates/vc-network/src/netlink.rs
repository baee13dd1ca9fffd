//! Requests to the kernel's network settings, one after the other.

use std::{io, iter};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::limits::{DUMP_TRIES, NETLINK_LIMIT, NETLINK_MESSAGES_MAX, NETLINK_PACKET_BYTES};

/// A connection to the settings of the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one in the calling thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // What else has this port number cannot send to a connected socket.
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(NETLINK_LIMIT))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; NETLINK_PACKET_BYTES],
        })
    }

    /// Changes something, and waits for the kernel's word that it is done.
    pub(crate) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.receive(&mut |_| Ok(())).map(|_| ())
    }

    /// Asks for one thing, which is `None` when it is not there.
    pub(crate) fn get(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        let mut found = None;
        let answer = self.receive(&mut |message| {
            found = Some(message);
            Ok(())
        });
        match answer {
            Ok(_) => Ok(found),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for a whole list. One that changed while it was read is read again.
    pub(crate) fn list(
        &mut self,
        message: &RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_TRIES {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let mut list = Vec::new();
            let whole = self.receive(&mut |message| {
                if list.len() == NETLINK_MESSAGES_MAX {
                    let text = format!("a list has more than {NETLINK_MESSAGES_MAX} entries");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                list.push(message);
                Ok(())
            })?;
            if whole {
                return Ok(list);
            }
        }
        let text = format!("a list changed {DUMP_TRIES} times while it was read");
        Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    /// Fills the buffer; the length is that of the packet, also where that is larger.
    fn receive_packet(&mut self) -> io::Result<usize> {
        loop {
            let received = self.socket.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC);
            match received {
                // A socket with a limit does not go on by itself after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(timed_out),
            }
        }
    }

    /// Takes the answers to the last request until its end; false when they are not of one moment.
    fn receive(
        &mut self,
        take: &mut dyn FnMut(RouteNetlinkMessage) -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut whole = true;
        loop {
            let length = self.receive_packet()?;
            let packet = self.buffer.get(..length).ok_or_else(|| {
                let text = format!("a message of the kernel has {length} bytes");
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
            for message in messages(packet) {
                let message = message?;
                if message.header.sequence_number != self.sequence {
                    // Of an earlier request that was given up.
                    continue;
                }
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => take(inner)?,
                    NetlinkPayload::Done(_) => return Ok(whole),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(whole),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }
}

/// The messages of one packet. After one that has no length, there is no next one.
pub(crate) fn messages(
    packet: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> + '_ {
    let mut rest = packet;
    iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let size = match NetlinkBuffer::new_checked(rest) {
            Ok(message) => message.length() as usize,
            Err(error) => {
                rest = &[];
                return Some(Err(not_understood(error)));
            }
        };
        let (bytes, after) = rest.split_at(size.min(rest.len()));
        // Messages begin at multiples of four.
        rest = after.get(size.next_multiple_of(4) - size..).unwrap_or(&[]);
        Some(NetlinkMessage::deserialize(bytes).map_err(not_understood))
    })
}

fn not_understood(error: netlink_packet_core::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The socket's limit passes as "would block".
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        let text = format!("no answer within {NETLINK_LIMIT:?}");
        io::Error::new(io::ErrorKind::TimedOut, text)
    } else {
        error
    }
}

/// Whether the thing that was asked for does not exist.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::ENXIO)
    )
}
