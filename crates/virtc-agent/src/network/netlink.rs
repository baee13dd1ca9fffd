//! A connection to the kernel's network, over netlink. The messages are `netlink-packet-route`'s.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Attempt as _, Result};

/// Protocol zero of netlink, which the kernel takes when none is named.
const NETLINK_ROUTE: Option<Protocol> = None;

/// How long the kernel may take to answer. It does so at once, but for a lock that others hold
/// while they take an interface down.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of one answer; the kernel's are at most half of it.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A connection, for one question at a time.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Connects to the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self> {
        let attempt = || "ask the kernel about the network".to_owned();
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            NETLINK_ROUTE,
        )
        .attempt(attempt)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_LIMIT)).attempt(attempt)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0)).attempt(attempt)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; ANSWER_BYTES_MAX],
        })
    }

    /// Asks for a change, and returns when it is made.
    pub(super) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_ACK | flags)?;
        self.answers(|_| {})
    }

    /// Asks for a table, and gives each entry to `take`. An entry of a kind that is not known is
    /// left out.
    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.send(message, NLM_F_DUMP)?;
        self.answers(take)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.socket, &bytes, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    /// Reads until the kernel says that it is done, or that it cannot.
    fn answers(&mut self, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
        loop {
            let bytes = match rustix::net::recv(
                &self.socket,
                self.buffer.as_mut_slice(),
                RecvFlags::empty(),
            ) {
                Ok((bytes, _)) => bytes,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            };
            let mut rest = self.buffer.get(..bytes).unwrap_or_default();
            while let Some((message, after)) = next_message(rest) {
                rest = after;
                if let Some(end) = self.one(message, &mut take) {
                    return end;
                }
            }
        }
    }

    /// What one message says: nothing yet, or the end.
    fn one(
        &self,
        bytes: &[u8],
        take: &mut impl FnMut(RouteNetlinkMessage),
    ) -> Option<io::Result<()>> {
        let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%error, "a message of the kernel's network");
                return None;
            }
        };
        // What is late from a question that was given up.
        if message.header.sequence_number != self.sequence {
            return None;
        }
        match message.payload {
            NetlinkPayload::Done(done) if done.code != 0 => Some(Err(system_error(done.code))),
            NetlinkPayload::Done(_) => Some(Ok(())),
            NetlinkPayload::Error(error) => Some(match error.code {
                None => Ok(()),
                Some(code) => Err(system_error(code.get())),
            }),
            NetlinkPayload::InnerMessage(entry) => {
                take(entry);
                None
            }
            _ => None,
        }
    }
}

fn system_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code.saturating_abs())
}

/// The first message of an answer, and what comes after it.
fn next_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = NetlinkBuffer::new_checked(bytes).ok()?;
    let length = header.length() as usize;
    let message = bytes.get(..length)?;
    // Each begins at a multiple of four.
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((message, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_cut_into_messages_and_what_is_short_is_none() {
        let mut bytes = vec![0; 17];
        bytes[0] = 17;
        bytes.extend([0; 3]);
        bytes.extend([16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let (first, rest) = next_message(&bytes).unwrap();
        assert_eq!(first.len(), 17);
        let (second, rest) = next_message(rest).unwrap();
        assert_eq!((second.len(), rest.len()), (16, 0));
        assert!(next_message(rest).is_none());
        assert!(next_message(&bytes[..15]).is_none());
        assert!(next_message(&[255; 20]).is_none());
    }

    #[test]
    fn the_kernel_answers_and_says_why_it_cannot() {
        let mut netlink = Netlink::open().unwrap();
        let mut links = 0;
        let all = RouteNetlinkMessage::GetLink(Default::default());
        netlink.dump(all, |_| links += 1).unwrap();
        assert!(links >= 1, "there is a loopback at least");
        let nothing = RouteNetlinkMessage::SetLink(Default::default());
        assert!(netlink.change(nothing, 0).is_err());
    }
}
