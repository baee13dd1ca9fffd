use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope as Scope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use crate::address::Cidr;
use crate::error::Result;
use crate::netlink::Netlink;

/// A route of the main table that somebody has set: the kernel's own ones come with the addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The index of the link by which it leads.
    pub link: u32,
    /// What it leads to; `0.0.0.0/0` or `::/0` for everything.
    pub destination: Cidr,
    /// The next hop. It may be of the other family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Whether the gateway is taken to be on the link whatever its address.
    #[serde(default)]
    pub on_link: bool,
    /// The source address that is preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// How far away the destination is.
    pub scope: RouteScope,
    /// Bytes of the largest packet on it, where it is not the link's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Its rank among those with the same destination: the lowest is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

/// How far away a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteScope {
    /// Anywhere.
    Universe,
    /// Inside the own site.
    Site,
    /// On the link itself.
    Link,
    /// The host itself.
    Host,
    /// Nowhere.
    Nowhere,
    /// A number that users may give a meaning.
    #[serde(untagged)]
    Other(u8),
}

impl From<RouteScope> for u8 {
    /// The kernel's number.
    fn from(scope: RouteScope) -> Self {
        match scope {
            RouteScope::Universe => 0,
            RouteScope::Site => 200,
            RouteScope::Link => 253,
            RouteScope::Host => 254,
            RouteScope::Nowhere => 255,
            RouteScope::Other(number) => number,
        }
    }
}

/// A route of the kernel: one for a machine, or the reason why it is none.
pub(crate) type Read = std::result::Result<Route, (String, &'static str)>;

/// The routes of a namespace.
#[derive(Default)]
pub(crate) struct Routes {
    /// What was set in the main table and elsewhere, in the kernel's order.
    pub(crate) set: Vec<Read>,
    /// The networks to which the kernel has made a route for an address, each with its link.
    pub(crate) connected: HashSet<(u32, Cidr)>,
}

/// All routes.
pub(crate) fn list(netlink: &mut Netlink) -> io::Result<Routes> {
    let mut routes = Routes::default();
    let list = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    for message in netlink.list(&list)? {
        let RouteNetlinkMessage::NewRoute(message) = message else {
            continue;
        };
        let is_set = is_set_by_somebody(&message);
        if !is_set && message.header.protocol != RouteProtocol::Kernel {
            continue;
        }
        let route = read(&message);
        let route = route.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match route {
            route if is_set => routes.set.push(route),
            Ok(route) => {
                routes.connected.insert((route.link, route.destination));
            }
            Err(_) => {}
        }
    }
    Ok(routes)
}

/// The kernel makes its own routes for each address, in the guest too, and copies of a route for
/// what it has learned of a destination.
pub(crate) fn is_set_by_somebody(message: &RouteMessage) -> bool {
    let header = &message.header;
    let unicast = matches!(
        header.address_family,
        AddressFamily::Inet | AddressFamily::Inet6
    );
    unicast
        && header.protocol != RouteProtocol::Kernel
        && !header.flags.contains(RouteFlags::Cloned)
}

fn read(message: &RouteMessage) -> Result<Read> {
    let header = &message.header;
    let mut any: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    if header.address_family == AddressFamily::Inet6 {
        any = Ipv6Addr::UNSPECIFIED.into();
    }
    let mut parts = Parts {
        table: u32::from(header.table),
        destination: Some(any),
        ..Parts::default()
    };
    for attribute in &message.attributes {
        parts.take(attribute);
    }
    let destination = Cidr::new(
        parts.destination.unwrap_or(any),
        header.destination_prefix_length,
    )?;
    let left_out = |reason| Ok(Err((format!("the route to {destination}"), reason)));
    if header.kind != RouteType::Unicast {
        return left_out("it leads to no neighbour");
    }
    if parts.table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return left_out("it is not in the main table");
    }
    if parts.encapsulated {
        return left_out("it encapsulates packets");
    }
    let Some(link) = parts.link else {
        return left_out("it leads by more than one link");
    };
    Ok(Ok(Route {
        link,
        destination,
        gateway: parts.gateway,
        on_link: header.flags.contains(RouteFlags::Onlink),
        source: parts.source,
        scope: match header.scope {
            Scope::Universe => RouteScope::Universe,
            Scope::Site => RouteScope::Site,
            Scope::Link => RouteScope::Link,
            Scope::Host => RouteScope::Host,
            Scope::NoWhere => RouteScope::Nowhere,
            other => RouteScope::Other(other.into()),
        },
        mtu: parts.mtu,
        metric: parts.metric,
    }))
}

/// The links by which the main table leads to everything of IPv6 that has no other way.
pub(crate) fn default_links6(netlink: &mut Netlink) -> io::Result<Vec<u32>> {
    let mut links = Vec::new();
    let list = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    for message in netlink.list(&list)? {
        let RouteNetlinkMessage::NewRoute(message) = message else {
            continue;
        };
        let header = &message.header;
        let is_default = header.address_family == AddressFamily::Inet6
            && header.destination_prefix_length == 0
            && header.kind == RouteType::Unicast
            && is_set_by_somebody(&message);
        let read =
            read(&message).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let (true, Ok(route)) = (is_default, read) {
            links.push(route.link);
        }
    }
    Ok(links)
}

/// Sets the way to everything that has no other one.
pub(crate) fn add_default(netlink: &mut Netlink, link: u32, gateway: IpAddr) -> io::Result<()> {
    let mut message = RouteMessage::default();
    let (family, gateway) = match gateway {
        IpAddr::V4(gateway) => (AddressFamily::Inet, RouteAddress::Inet(gateway)),
        IpAddr::V6(gateway) => (AddressFamily::Inet6, RouteAddress::Inet6(gateway)),
    };
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = Scope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(gateway), RouteAttribute::Oif(link)];
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    netlink.change(RouteNetlinkMessage::NewRoute(message), flags)
}

#[derive(Default)]
struct Parts {
    table: u32,
    destination: Option<IpAddr>,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    link: Option<u32>,
    mtu: Option<u32>,
    metric: Option<u32>,
    encapsulated: bool,
}

impl Parts {
    fn take(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Table(number) => self.table = *number,
            RouteAttribute::Destination(address) => self.destination = ip(address),
            RouteAttribute::Gateway(address) => self.gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => self.gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => self.gateway = Some((*address).into()),
            RouteAttribute::PrefSource(address) => self.source = ip(address),
            RouteAttribute::Oif(index) => self.link = Some(*index),
            RouteAttribute::Priority(number) => self.metric = Some(*number),
            RouteAttribute::EncapType(_) => self.encapsulated = true,
            RouteAttribute::Metrics(metrics) => {
                self.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(bytes) => Some(*bytes),
                    _ => None,
                });
            }
            _ => {}
        }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
