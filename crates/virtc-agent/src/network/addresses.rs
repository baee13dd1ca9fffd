//! The addresses of interfaces.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};

use super::link::Link;
use super::netlink::Netlink;
use super::prefix::{Prefix, family};
use crate::error::{Attempt as _, Result};

/// Addresses that are looked at.
const ADDRESSES_MAX: usize = 4096;

/// IPv4 networks with more bits than this have no broadcast address.
const BROADCAST_PREFIX_MAX: u8 = 30;

/// An address that an interface has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assigned {
    pub(super) index: u32,
    pub(super) prefix: Prefix,
    scope: AddressScope,
    /// Whether it ends by itself, as what a router has told.
    is_dynamic: bool,
    /// Whether the kernel made no route to its network.
    without_route: bool,
}

impl Assigned {
    /// Whether the kernel makes it by itself: for every interface that is up, or by what a router
    /// tells.
    fn is_kernels(&self) -> bool {
        self.prefix.address.is_ipv6() && (self.is_dynamic || self.scope == AddressScope::Link)
    }
}

/// All addresses of all interfaces.
pub(super) fn list(netlink: &mut Netlink) -> Result<Vec<Assigned>> {
    let mut found = Vec::new();
    let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let dumped = netlink.dump(all, |entry| {
        if let RouteNetlinkMessage::NewAddress(message) = entry
            && found.len() < ADDRESSES_MAX
        {
            found.extend(read(&message));
        }
    });
    dumped.attempt(|| "list the addresses of the network interfaces".into())?;
    Ok(found)
}

/// IPv4 tells its own as the local one, where the other may be a peer's; IPv6 has one only.
fn read(message: &AddressMessage) -> Option<Assigned> {
    let local = message.attributes.iter().find_map(|entry| match entry {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let plain = message.attributes.iter().find_map(|entry| match entry {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let address = local.or(plain)?;
    Some(Assigned {
        index: message.header.index,
        prefix: Prefix::new(address, message.header.prefix_len.into()).ok()?,
        scope: message.header.scope,
        without_route: message.attributes.iter().any(|entry| {
            matches!(entry, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Noprefixroute))
        }),
        is_dynamic: !message.header.flags.contains(AddressHeaderFlags::Permanent),
    })
}

/// Gives a link these addresses and takes all others but those that the kernel made. To the networks of
/// `without_route`, which are among them, the kernel makes no route.
pub(super) fn replace(
    netlink: &mut Netlink,
    link: &Link,
    wanted: &[Prefix],
    without_route: &[Prefix],
) -> Result<()> {
    let assigned = list(netlink)?;
    let others = assigned.iter().filter(|assigned| {
        // One whose route is to come or to go is given anew.
        let as_wanted = wanted.contains(&assigned.prefix)
            && without_route.contains(&assigned.prefix) == assigned.without_route;
        assigned.index == link.index && !assigned.is_kernels() && !as_wanted
    });
    for Assigned { prefix, .. } in others {
        let message = RouteNetlinkMessage::DelAddress(message(link, prefix));
        match netlink.change(message, 0) {
            // It went with another one of its network.
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
            result => result
                .attempt(|| format!("remove address {prefix} from interface {:?}", link.name))?,
        }
    }
    // Those that are there are given again: they may just have gone with another one.
    for prefix in wanted {
        let mut message = message(link, prefix);
        if let Some(broadcast) = broadcast(prefix) {
            message
                .attributes
                .push(AddressAttribute::Broadcast(broadcast));
        }
        let mut flags = AddressFlags::empty();
        flags.set(AddressFlags::Nodad, prefix.address.is_ipv6());
        flags.set(AddressFlags::Noprefixroute, without_route.contains(prefix));
        message.attributes.push(AddressAttribute::Flags(flags));
        netlink
            .change(
                RouteNetlinkMessage::NewAddress(message),
                NLM_F_CREATE | NLM_F_REPLACE,
            )
            .attempt(|| format!("give address {prefix} to interface {:?}", link.name))?;
    }
    Ok(())
}

fn message(link: &Link, prefix: &Prefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(prefix.address);
    message.header.prefix_len = prefix.length;
    message.header.index = link.index;
    message.attributes = vec![
        AddressAttribute::Local(prefix.address),
        AddressAttribute::Address(prefix.address),
    ];
    message
}

fn broadcast(prefix: &Prefix) -> Option<Ipv4Addr> {
    match prefix.address {
        IpAddr::V4(ip) if prefix.length <= BROADCAST_PREFIX_MAX => {
            let host = u32::MAX.checked_shr(prefix.length.into()).unwrap_or(0);
            Some(Ipv4Addr::from_bits(ip.to_bits() | host))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_networks_have_no_broadcast_address() {
        let of = |text| broadcast(&Prefix::parse_destination(text).unwrap());
        assert_eq!(of("10.1.2.3/16"), Some(Ipv4Addr::new(10, 1, 255, 255)));
        assert_eq!(of("10.1.2.3/0"), Some(Ipv4Addr::BROADCAST));
        assert_eq!(of("10.1.2.3/31"), None);
        assert_eq!(of("fd00::1/16"), None);
    }
}
