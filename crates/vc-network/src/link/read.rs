//! Links and their addresses, from the kernel's messages.

use std::collections::HashMap;
use std::io;

use netlink_packet_core::Nla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use super::{Link, LinkKind};
use crate::address::{Cidr, LinkAddress};
use crate::error::Result;
use crate::interface_name::InterfaceName;
use crate::interworking::TapFlags;
use crate::mac::MacAddress;
use crate::netlink::Netlink;

/// `IFLA_TUN_*`, which neither crate below has.
const TUN_PI: u16 = 4;
const TUN_VNET_HDR: u16 = 5;
const TUN_MULTI_QUEUE: u16 = 7;

/// All links, by index, without their addresses.
pub(crate) fn list(netlink: &mut Netlink) -> io::Result<Vec<Link>> {
    let messages = netlink.list(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let mut links: Vec<_> = messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(message) => Some(read(message)),
            _ => None,
        })
        .collect::<Result<_>>()
        .map_err(invalid_data)?;
    links.sort_by_key(|link| link.index);
    Ok(links)
}

/// The link of this index.
pub(crate) fn by_index(netlink: &mut Netlink, index: u32) -> io::Result<Option<Link>> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    get(netlink, message)
}

/// The link of this name.
pub(crate) fn by_name(netlink: &mut Netlink, name: &InterfaceName) -> io::Result<Option<Link>> {
    let mut message = LinkMessage::default();
    let name = LinkAttribute::IfName(name.as_str().to_owned());
    message.attributes.push(name);
    get(netlink, message)
}

/// How the tap of this index was made; `None` for another link.
pub(crate) fn tap_flags(netlink: &mut Netlink, index: u32) -> io::Result<Option<TapFlags>> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let Some(RouteNetlinkMessage::NewLink(message)) =
        netlink.get(RouteNetlinkMessage::GetLink(message))?
    else {
        return Ok(None);
    };
    let infos = message.attributes.into_iter().find_map(|one| match one {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let settings = infos.into_iter().flatten().find_map(|info| match info {
        LinkInfo::Data(InfoData::Tun(settings)) => Some(settings),
        _ => None,
    });
    Ok(settings.map(|settings| {
        let is_set = |kind| {
            settings.iter().any(|setting| {
                let mut value = vec![0; setting.value_len()];
                setting.emit_value(&mut value);
                setting.kind() == kind && value.first().is_some_and(|value| *value != 0)
            })
        };
        TapFlags {
            virtio_header: is_set(TUN_VNET_HDR),
            packet_information: is_set(TUN_PI),
            several_queues: is_set(TUN_MULTI_QUEUE),
        }
    }))
}

fn get(netlink: &mut Netlink, message: LinkMessage) -> io::Result<Option<Link>> {
    match netlink.get(RouteNetlinkMessage::GetLink(message))? {
        Some(RouteNetlinkMessage::NewLink(message)) => {
            read(message).map(Some).map_err(invalid_data)
        }
        _ => Ok(None),
    }
}

/// The addresses of all links, by the links' indexes.
pub(crate) fn addresses_of(netlink: &mut Netlink) -> io::Result<HashMap<u32, Vec<LinkAddress>>> {
    let list = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut addresses: HashMap<u32, Vec<LinkAddress>> = HashMap::new();
    for message in netlink.list(&list)? {
        if let RouteNetlinkMessage::NewAddress(message) = message
            && let Some(address) = read_address(&message).map_err(invalid_data)?
        {
            let index = message.header.index;
            addresses.entry(index).or_default().push(address);
        }
    }
    Ok(addresses)
}

fn read_address(message: &AddressMessage) -> Result<Option<LinkAddress>> {
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    // Where both are there and differ, the link is a point-to-point connection.
    let Some(own) = local.or(address) else {
        return Ok(None);
    };
    Ok(Some(LinkAddress {
        cidr: Cidr::new(own, message.header.prefix_len)?,
        peer: address.filter(|ip| *ip != own),
        without_route: false,
    }))
}

fn read(message: LinkMessage) -> Result<Link> {
    let flags = message.header.flags;
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let (mut name, mut address, mut mtu, mut queues) = (String::new(), None, 0, 1);
    let (mut info, mut bus, mut device) = (None, None, None);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text,
            LinkAttribute::Address(bytes) => address = <[u8; 6]>::try_from(bytes).ok(),
            LinkAttribute::Mtu(bytes) => mtu = bytes,
            LinkAttribute::NumTxQueues(number) => queues = number,
            LinkAttribute::ParentDevName(text) => device = Some(text),
            LinkAttribute::ParentDevBusName(text) => bus = Some(text),
            LinkAttribute::LinkInfo(infos) => {
                info = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let kind = match info {
        _ if flags.contains(LinkFlags::Loopback) => LinkKind::Loopback,
        Some(InfoKind::Veth) => LinkKind::Veth,
        Some(InfoKind::MacVlan) => LinkKind::Macvlan,
        Some(InfoKind::IpVlan) => LinkKind::Ipvlan,
        Some(InfoKind::MacVtap) => LinkKind::Macvtap,
        Some(InfoKind::Tun) if ethernet => LinkKind::Tap,
        Some(InfoKind::Tun) => LinkKind::Tun,
        Some(kind) => LinkKind::Other(kind.to_string()),
        // Whatever the kernel makes up has a kind.
        None if ethernet => LinkKind::Physical { bus, device },
        None => LinkKind::Other("unknown".to_owned()),
    };
    let mac = address.filter(|_| ethernet);
    Ok(Link {
        index: message.header.index,
        name: InterfaceName::new(name)?,
        kind,
        mac: mac.and_then(|octets| MacAddress::new(octets).ok()),
        mtu,
        up: flags.contains(LinkFlags::Up),
        no_arp: flags.contains(LinkFlags::Noarp),
        queues,
        addresses: Vec::new(),
        link_local: Vec::new(),
    })
}

fn invalid_data(error: crate::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of the kernel about an Ethernet link, with these attributes too.
    fn message(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes = vec![
            LinkAttribute::IfName("net0".to_owned()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 7]),
        ];
        message.attributes.extend(attributes);
        message
    }

    fn of_kind(kind: InfoKind) -> LinkMessage {
        message(vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])])
    }

    #[test]
    fn an_ipvlan_is_known_where_the_kernel_has_none() {
        let link = read(of_kind(InfoKind::IpVlan)).unwrap();
        assert_eq!(link.kind, LinkKind::Ipvlan);
        assert_eq!((link.index, link.mtu), (7, 1500));
    }

    #[test]
    fn a_card_has_no_kind_and_says_where_it_is() {
        let card = message(vec![
            LinkAttribute::ParentDevName("0000:03:00.0".to_owned()),
            LinkAttribute::ParentDevBusName("pci".to_owned()),
        ]);
        let (bus, device) = (Some("pci".to_owned()), Some("0000:03:00.0".to_owned()));
        let expected = LinkKind::Physical { bus, device };
        assert_eq!(read(card).unwrap().kind, expected);
    }

    #[test]
    fn a_link_without_ethernet_has_no_mac() {
        let mut tunnel = of_kind(InfoKind::Wireguard);
        tunnel.header.link_layer_type = LinkLayerType::None;
        let link = read(tunnel).unwrap();
        assert_eq!((link.kind.as_str(), link.mac), ("wireguard", None));
    }
}
