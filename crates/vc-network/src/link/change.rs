//! Changes of links that are ours.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};

use crate::interface_name::InterfaceName;
use crate::netlink::{Netlink, is_gone};

/// The loopback interface has this index in every namespace.
const LOOPBACK: u32 = 1;

/// Sets a link up, and its MTU where one is given.
pub(crate) fn raise(netlink: &mut Netlink, index: u32, mtu: Option<u32>) -> io::Result<()> {
    let mut message = of(index);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    netlink.change(RouteNetlinkMessage::SetLink(message), 0)
}

/// Moves a link to another namespace, where it has this name.
pub(crate) fn move_to(
    netlink: &mut Netlink,
    index: u32,
    namespace: BorrowedFd<'_>,
    name: &InterfaceName,
) -> io::Result<()> {
    let mut message = of(index);
    message.attributes.extend([
        LinkAttribute::IfName(name.as_str().to_owned()),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
    ]);
    netlink.change(RouteNetlinkMessage::SetLink(message), 0)
}

/// Sets the loopback interface up.
pub(crate) fn raise_loopback(netlink: &mut Netlink) -> io::Result<()> {
    raise(netlink, LOOPBACK, None)
}

/// Keeps IPv6 from making an address for a link, and from speaking on it by itself.
pub(crate) fn silence_ipv6(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let mut message = of(index);
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let family = AfSpecUnspec::Inet6(vec![mode]);
    let attribute = LinkAttribute::AfSpecUnspec(vec![family]);
    message.attributes.push(attribute);
    match netlink.change(RouteNetlinkMessage::SetLink(message), 0) {
        // A kernel without IPv6 says nothing on the link anyway.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
        other => other,
    }
}

/// Deletes a link, if it is there.
pub(crate) fn delete(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    match netlink.change(RouteNetlinkMessage::DelLink(of(index)), 0) {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

pub(super) fn of(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}
