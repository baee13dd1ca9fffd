//! The network objects of Kata's calls, from and to ours.

use std::net::IpAddr;

use agent_protocol::agent::ARPNeighbors;
use agent_protocol::types;
use netlink_packet_route::route::RouteFlags;
use protobuf::EnumOrUnknown;

use super::addresses::Assigned;
use super::interface::{Interface, Name, Place};
use super::link::Link;
use super::mac::Mac;
use super::neighbours::Neighbour;
use super::prefix::{Prefix, parse_address};
use super::routes::{Found, Route};
use crate::error::{Error, Result};

/// The flag of an interface that asks nobody for MACs, as in linux/if.h.
const IFF_NOARP: u32 = 1 << 7;

/// What Kata calls the kind of an interface like ours.
const INTERFACE_TYPE: &str = "virtio";

/// Routes of one answer, which has to fit into a message.
const ROUTES_TOLD_MAX: usize = 4096;

pub(super) fn interface(message: &types::Interface) -> Result<Interface> {
    let name = Name::parse(&message.name)?;
    let mac = match message.hwAddr.as_str() {
        "" => None,
        text => Some(Mac::parse(text)?),
    };
    let mtu = u32::try_from(message.mtu).map_err(|_| Error::Invalid {
        field: "MTU",
        value: message.mtu.to_string(),
        reason: "is out of range",
    })?;
    let addresses = message.IPAddresses.iter();
    Ok(Interface {
        place: Place::new(&message.devicePath, mac, &name)?,
        mac,
        mtu: (mtu != 0).then_some(mtu),
        addresses: addresses
            .map(|address| Prefix::parse(&address.address, &address.mask))
            .collect::<Result<_>>()?,
        without_route: Vec::new(),
        no_arp: message.raw_flags & IFF_NOARP != 0,
        name,
    })
}

pub(super) fn route(message: &types::Route) -> Result<Route> {
    let optional = |text: &str| -> Result<Option<IpAddr>> {
        match text {
            "" => Ok(None),
            text => parse_address(text).map(Some),
        }
    };
    let destination = match message.dest.as_str() {
        "" | "default" => None,
        text => Some(Prefix::parse_destination(text)?),
    };
    let gateway = optional(&message.gateway)?;
    let says_ipv6 = message.family == EnumOrUnknown::new(types::IPFamily::v6);
    let is_ipv6 = |address: Option<IpAddr>| address.is_some_and(|address| address.is_ipv6());
    let route = Route {
        ipv6: says_ipv6 || is_ipv6(destination.map(|to| to.address)) || is_ipv6(gateway),
        destination,
        on_link: message.flags & RouteFlags::Onlink.bits() != 0,
        gateway,
        source: optional(&message.source)?,
        scope: u8::try_from(message.scope).map_err(|_| Error::Invalid {
            field: "route scope",
            value: message.scope.to_string(),
            reason: "is none that the kernel has",
        })?,
        mtu: (message.mtu != 0).then_some(message.mtu),
        metric: None,
        device: message.device.clone(),
    };
    route.checked()
}

pub(super) fn neighbours(message: &ARPNeighbors) -> Result<Vec<Neighbour>> {
    message.ARPNeighbors.iter().map(neighbour).collect()
}

fn neighbour(message: &types::ARPNeighbor) -> Result<Neighbour> {
    let number = |field, number: i32| {
        u32::try_from(number).map_err(|_| Error::Invalid {
            field,
            value: number.to_string(),
            reason: "is none that the kernel has",
        })
    };
    let (state, flags) = Neighbour::state_and_flags(
        number("neighbour state", message.state)?,
        number("neighbour flags", message.flags)?,
    )?;
    Ok(Neighbour {
        address: parse_address(&message.toIPAddress.address)?,
        device: message.device.clone(),
        mac: Mac::parse(&message.lladdr)?,
        state,
        flags,
    })
}

pub(super) fn interface_message(link: &Link, assigned: &[Assigned]) -> types::Interface {
    let own = assigned
        .iter()
        .filter(|assigned| assigned.index == link.index);
    types::Interface {
        device: link.name.clone(),
        name: link.name.clone(),
        IPAddresses: own.map(|own| address_message(own.prefix)).collect(),
        mtu: link.mtu.into(),
        hwAddr: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        type_: INTERFACE_TYPE.into(),
        raw_flags: link.flags.bits(),
        ..types::Interface::default()
    }
}

fn address_message(prefix: Prefix) -> types::IPAddress {
    types::IPAddress {
        family: family(prefix.address.is_ipv6()),
        address: prefix.address.to_string(),
        mask: prefix.length.to_string(),
        ..types::IPAddress::default()
    }
}

pub(super) fn route_messages(found: &[Found]) -> Vec<types::Route> {
    let routes = found.iter().map(|found| route_message(&found.route));
    routes.take(ROUTES_TOLD_MAX).collect()
}

fn route_message(route: &Route) -> types::Route {
    let text = |address: Option<IpAddr>| address.map(|ip| ip.to_string()).unwrap_or_default();
    let flags = match route.on_link {
        true => RouteFlags::Onlink,
        false => RouteFlags::empty(),
    };
    types::Route {
        dest: route
            .destination
            .map(|to| to.to_string())
            .unwrap_or_default(),
        gateway: text(route.gateway),
        device: route.device.clone(),
        source: text(route.source),
        scope: route.scope.into(),
        family: family(route.ipv6),
        flags: flags.bits(),
        mtu: route.mtu.unwrap_or(0),
        ..types::Route::default()
    }
}

fn family(ipv6: bool) -> EnumOrUnknown<types::IPFamily> {
    EnumOrUnknown::new(match ipv6 {
        true => types::IPFamily::v6,
        false => types::IPFamily::v4,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_mask_is_refused() {
        let mut message = types::Interface {
            name: "eth0".into(),
            hwAddr: "02:00:00:00:00:01".into(),
            IPAddresses: vec![types::IPAddress {
                address: "10.0.0.1".into(),
                ..types::IPAddress::default()
            }],
            ..types::Interface::default()
        };
        let error = interface(&message).unwrap_err().to_string();
        assert!(error.contains("has no mask"), "{error}");
        message.IPAddresses[0].mask = "24".into();
        assert_eq!(interface(&message).unwrap().addresses.len(), 1);
        message.mtu = u64::MAX;
        assert!(interface(&message).is_err());
    }

    #[test]
    fn a_route_comes_back_as_it_went() {
        let message = types::Route {
            dest: "fd00:1::/32".into(),
            gateway: "fd00::1".into(),
            device: "eth0".into(),
            flags: 4,
            family: family(true),
            mtu: 1400,
            ..types::Route::default()
        };
        assert_eq!(route_message(&route(&message).unwrap()), message);
        let default = types::Route {
            dest: "default".into(),
            gateway: "10.0.0.1".into(),
            ..types::Route::default()
        };
        assert_eq!(route(&default).unwrap().destination, None);
        assert!(route(&types::Route::default()).is_err());
    }
}
