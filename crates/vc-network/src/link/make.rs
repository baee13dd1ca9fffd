//! Links that are made here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoMacVtap, InfoPortData, InfoPortKind, InfoVeth,
    LinkAttribute, LinkInfo, LinkMessage, MacVtapMode,
};
use netlink_packet_route::{AddressFamily, address::AddressScope};

use super::change::of;
use crate::address::Cidr;
use crate::interface_name::InterfaceName;
use crate::mac::MacAddress;
use crate::netlink::Netlink;

/// Makes a bridge; none must have its name. Its hardware address does not change with its ports:
/// the kernel would forget each time which neighbours are set.
pub(crate) fn make_bridge(
    netlink: &mut Netlink,
    name: &InterfaceName,
    mac: MacAddress,
) -> io::Result<()> {
    let mut message = named(name);
    let mac = LinkAttribute::Address(mac.octets().to_vec());
    message.attributes.push(mac);
    make(netlink, message, vec![LinkInfo::Kind(InfoKind::Bridge)])
}

/// Makes a veth whose other end is in another namespace, with this name and hardware address.
pub(crate) fn make_veth(
    netlink: &mut Netlink,
    name: &InterfaceName,
    peer: &InterfaceName,
    peer_mac: MacAddress,
    peer_namespace: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut other = named(peer);
    other.attributes.extend([
        LinkAttribute::Address(peer_mac.octets().to_vec()),
        LinkAttribute::NetNsFd(peer_namespace.as_raw_fd()),
    ]);
    let infos = vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
    ];
    make(netlink, named(name), infos)
}

/// Makes a macvtap with the hardware address of the link on which it is, and all its frames.
pub(crate) fn make_macvtap(netlink: &mut Netlink, name: &InterfaceName, on: u32) -> io::Result<()> {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::Link(on));
    let mode = InfoMacVtap::Mode(MacVtapMode::Passthrough);
    let infos = vec![
        LinkInfo::Kind(InfoKind::MacVtap),
        LinkInfo::Data(InfoData::MacVtap(vec![mode])),
    ];
    make(netlink, message, infos)
}

fn make(netlink: &mut Netlink, mut message: LinkMessage, infos: Vec<LinkInfo>) -> io::Result<()> {
    message.attributes.push(LinkAttribute::LinkInfo(infos));
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    netlink.change(RouteNetlinkMessage::NewLink(message), flags)
}

fn named(name: &InterfaceName) -> LinkMessage {
    let mut message = LinkMessage::default();
    let name = LinkAttribute::IfName(name.as_str().to_owned());
    message.attributes.push(name);
    message
}

/// Makes a link a port of a bridge.
pub(crate) fn join_bridge(netlink: &mut Netlink, index: u32, bridge: u32) -> io::Result<()> {
    let mut message = of(index);
    message.attributes.push(LinkAttribute::Controller(bridge));
    netlink.change(RouteNetlinkMessage::SetLink(message), 0)
}

/// Keeps a port of a bridge from other isolated ones, and from telling the bridge by its frames
/// which hardware addresses are behind it.
pub(crate) fn isolate(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let settings = vec![
        InfoBridgePort::Isolated(true),
        InfoBridgePort::Learning(false),
        InfoBridgePort::UnicastFlood(false),
    ];
    let mut message = of(index);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(settings)),
    ]));
    // The kernel reads these from messages of this kind alone; nothing is made.
    netlink.change(RouteNetlinkMessage::NewLink(message), 0)
}

/// Gives a link an address; one that is there stays. One of IPv6 is used at once: who makes it knows
/// that nobody else has it.
pub(crate) fn add_address(netlink: &mut Netlink, index: u32, cidr: Cidr) -> io::Result<()> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    if cidr.address().is_ipv6() {
        message.header.family = AddressFamily::Inet6;
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.header.index = index;
    message.header.prefix_len = cidr.prefix();
    message.header.scope = AddressScope::Universe;
    message.attributes = vec![
        AddressAttribute::Local(cidr.address()),
        AddressAttribute::Address(cidr.address()),
    ];
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    netlink.change(RouteNetlinkMessage::NewAddress(message), flags)
}
