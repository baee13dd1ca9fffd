use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use serde::{Deserialize, Serialize};

use crate::mac::MacAddress;
use crate::netlink::{Netlink, is_gone};

/// A neighbour whose hardware address somebody has set for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The index of the link on which it is.
    pub link: u32,
    /// Its IP address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: MacAddress,
    /// Whether it is an IPv6 router.
    #[serde(default)]
    pub router: bool,
}

/// The permanent neighbours of all links, in the kernel's order.
pub(crate) fn list(netlink: &mut Netlink) -> io::Result<Vec<Neighbour>> {
    let messages = netlink.list(&RouteNetlinkMessage::GetNeighbour(
        NeighbourMessage::default(),
    ))?;
    let read = |message| match message {
        RouteNetlinkMessage::NewNeighbour(message) => read(message),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(read).collect())
}

/// `None` for one that was only learned, or that has no hardware address.
fn read(message: NeighbourMessage) -> Option<Neighbour> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(ip.into())
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(ip.into());
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes).ok(),
            _ => {}
        }
    }
    Some(Neighbour {
        link: message.header.ifindex,
        address: address?,
        mac: MacAddress::new(mac?).ok()?,
        router: message.header.flags.contains(NeighbourFlags::Router),
    })
}

/// Sets the hardware address of a neighbour for good.
pub(crate) fn add(
    netlink: &mut Netlink,
    link: u32,
    address: IpAddr,
    mac: MacAddress,
) -> io::Result<()> {
    let (family, address) = destination(address);
    let mut message = of(family, link);
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(address),
        NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()),
    ];
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    netlink.change(RouteNetlinkMessage::NewNeighbour(message), flags)
}

/// Removes a neighbour, if it is there.
pub(crate) fn remove(netlink: &mut Netlink, link: u32, address: IpAddr) -> io::Result<()> {
    let (family, address) = destination(address);
    let mut message = of(family, link);
    message.attributes = vec![NeighbourAttribute::Destination(address)];
    match netlink.change(RouteNetlinkMessage::DelNeighbour(message), 0) {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

/// Tells a bridge that a hardware address is behind this port of it.
pub(crate) fn add_behind_port(netlink: &mut Netlink, port: u32, mac: MacAddress) -> io::Result<()> {
    let mut message = of(AddressFamily::Bridge, port);
    // One that does not age and does not move.
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    let mac = mac.octets().to_vec();
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac)];
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    netlink.change(RouteNetlinkMessage::NewNeighbour(message), flags)
}

fn destination(address: IpAddr) -> (AddressFamily, NeighbourAddress) {
    match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    }
}

fn of(family: AddressFamily, link: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = link;
    message
}
