use std::io;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use serde::{Deserialize, Serialize};

use crate::mac::MacAddress;
use crate::netlink::Netlink;

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
