//! The loopback interface, over netlink: one message, so no crate for it.

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Attempt as _, Result};

/// Protocol zero of netlink, which the kernel takes when none is named.
const NETLINK_ROUTE: Option<Protocol> = None;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const IFF_UP: u32 = 1;
/// The first interface of a network namespace is always `lo`.
const LOOPBACK_INDEX: u32 = 1;
const MESSAGE_BYTES: usize = 32;
const ERROR_OFFSET: usize = 16;

/// Sets the loopback interface up; the kernel gives it its addresses then.
pub(super) fn bring_up() -> Result<()> {
    let attempt = || "set the loopback interface up".to_owned();
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        NETLINK_ROUTE,
    )
    .attempt(attempt)?;
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &message(), SendFlags::empty(), &kernel).attempt(attempt)?;
    let mut answer = [0; 256];
    let (bytes, _) =
        rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty()).attempt(attempt)?;
    match error_of(&answer[..bytes]) {
        0 => Ok(()),
        error => Err(Errno::from_raw_os_error(-error)).attempt(attempt),
    }
}

/// `nlmsghdr` and `ifinfomsg`: this interface, with the flag set.
fn message() -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    message[0..4].copy_from_slice(&(MESSAGE_BYTES as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message[20..24].copy_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    message[24..28].copy_from_slice(&IFF_UP.to_ne_bytes());
    message[28..32].copy_from_slice(&IFF_UP.to_ne_bytes());
    message
}

/// The error number of an acknowledgement, zero for success.
fn error_of(answer: &[u8]) -> i32 {
    answer
        .get(ERROR_OFFSET..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map_or(-Errno::PROTO.raw_os_error(), |bytes| {
            i32::from_ne_bytes(*bytes)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_too_short_is_an_error() {
        assert_eq!(error_of(&[0; 12]), -Errno::PROTO.raw_os_error());
        assert_eq!(error_of(&[0; 36]), 0);
    }
}
