//! Routes: those that the host wants, beside those of the kernel and of containers.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::{self, Link};
use super::netlink::Netlink;
use super::prefix::Prefix;
use crate::error::{Attempt as _, Error, Result};

/// Routes that are looked at and told of. A container may make any number of them.
const ROUTES_MAX: usize = 4096;

/// One route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// None: the default route.
    pub(super) destination: Option<Prefix>,
    pub(super) ipv6: bool,
    pub(super) gateway: Option<IpAddr>,
    pub(super) on_link: bool,
    pub(super) source: Option<IpAddr>,
    pub(super) scope: u8,
    pub(super) mtu: Option<u32>,
    pub(super) metric: Option<u32>,
    /// Empty: where the gateway is.
    pub(super) device: String,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.destination {
            Some(destination) => write!(f, "{destination}")?,
            None if self.ipv6 => write!(f, "default (IPv6)")?,
            None => write!(f, "default")?,
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if !self.device.is_empty() {
            write!(f, " dev {}", self.device)?;
        }
        Ok(())
    }
}

impl Route {
    /// Finds what cannot be a route, and takes off what says nothing.
    pub(super) fn checked(mut self) -> Result<Self> {
        let invalid = |route: &Self, reason| Error::Invalid {
            field: "route",
            value: route.to_string(),
            reason,
        };
        if self.gateway.is_none() && self.device.is_empty() {
            return Err(invalid(&self, "has neither a gateway nor an interface"));
        }
        if self.on_link && (self.gateway.is_none() || self.device.is_empty()) {
            return Err(invalid(
                &self,
                "is on-link without a gateway and an interface",
            ));
        }
        let addresses = [
            self.destination.map(|d| d.address),
            self.gateway,
            self.source,
        ];
        if addresses
            .iter()
            .flatten()
            .any(|address| address.is_ipv6() != self.ipv6)
        {
            return Err(invalid(&self, "has addresses of two families"));
        }
        self.destination = self
            .destination
            .map(Prefix::network)
            .filter(|destination| destination.length > 0);
        // IPv6 has no scopes, and IPv4 finds no gateway behind a route that is not the link's.
        if self.ipv6 {
            self.scope = RouteScope::Universe.into();
        } else if self.gateway.is_none() && self.scope == 0 {
            self.scope = RouteScope::Link.into();
        }
        Ok(self)
    }

    /// Whether the kernel's route `other` already says what this one would.
    fn is_said_by(&self, other: &Self) -> bool {
        self.gateway.is_none()
            && other.gateway.is_none()
            && self.mtu.is_none()
            && self.destination == other.destination
            && self.ipv6 == other.ipv6
            && self.device == other.device
            && (self.source.is_none() || self.source == other.source)
            && (self.metric.is_none() || self.metric == other.metric)
    }

    pub(super) fn message(&self, links: &[Link]) -> Result<RouteMessage> {
        let mut message = RouteMessage::default();
        message.header.address_family = match self.ipv6 {
            true => AddressFamily::Inet6,
            false => AddressFamily::Inet,
        };
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = RouteScope::from(self.scope);
        if self.on_link {
            message.header.flags = RouteFlags::Onlink;
        }
        let attributes = &mut message.attributes;
        if let Some(destination) = self.destination {
            message.header.destination_prefix_length = destination.length;
            attributes.push(RouteAttribute::Destination(destination.address.into()));
        }
        if let Some(gateway) = self.gateway {
            attributes.push(RouteAttribute::Gateway(gateway.into()));
        }
        if let Some(source) = self.source {
            attributes.push(RouteAttribute::PrefSource(source.into()));
        }
        if let Some(mtu) = self.mtu {
            attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        }
        if let Some(metric) = self.metric {
            attributes.push(RouteAttribute::Priority(metric));
        }
        if !self.device.is_empty() {
            let link = link::by_name(links, &self.device)?;
            attributes.push(RouteAttribute::Oif(link.index));
        }
        Ok(message)
    }
}

/// A route that is in the kernel, and whether the kernel made it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) route: Route,
    pub(super) is_kernels: bool,
}

/// The unicast routes of the main table.
pub(super) fn list(netlink: &mut Netlink) -> Result<Vec<Found>> {
    let links = link::list(netlink)?;
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let dumped = netlink.dump(RouteNetlinkMessage::GetRoute(message), |entry| {
            if let RouteNetlinkMessage::NewRoute(message) = entry
                && found.len() < ROUTES_MAX
            {
                found.extend(read(message, &links));
            }
        });
        dumped.attempt(|| "list the routes".into())?;
    }
    Ok(found)
}

fn read(message: RouteMessage, links: &[Link]) -> Option<Found> {
    let header = &message.header;
    let ipv6 = header.address_family == AddressFamily::Inet6;
    // A cache's entry is no route.
    if header.kind != RouteType::Unicast
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.flags.contains(RouteFlags::Cloned)
    {
        return None;
    }
    let mut route = Route {
        destination: None,
        ipv6,
        gateway: None,
        on_link: header.flags.contains(RouteFlags::Onlink),
        source: None,
        scope: header.scope.into(),
        mtu: None,
        metric: None,
        device: String::new(),
    };
    let length = header.destination_prefix_length.into();
    let is_kernels = header.protocol == RouteProtocol::Kernel;
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                route.destination = Some(Prefix::new(ip(&address)?, length).ok()?);
            }
            RouteAttribute::Gateway(address) => route.gateway = ip(&address),
            RouteAttribute::PrefSource(address) => route.source = ip(&address),
            RouteAttribute::Priority(metric) => route.metric = Some(metric),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::Oif(index) => {
                let link = links.iter().find(|link| link.index == index)?;
                route.device = link.name.clone();
            }
            _ => {}
        }
    }
    Some(Found { route, is_kernels })
}

fn ip(address: &netlink_packet_route::route::RouteAddress) -> Option<IpAddr> {
    use netlink_packet_route::route::RouteAddress;
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Makes `wanted` of what was `set` before: what is not wanted any more goes, the rest comes.
/// Routes of the kernel and of containers stay. `set` is true whatever happens.
pub(super) fn replace(
    netlink: &mut Netlink,
    set: &mut Vec<Route>,
    wanted: Vec<Route>,
) -> Result<()> {
    let links = link::list(netlink)?;
    let mut messages = Vec::new();
    for route in &wanted {
        let message = route.message(&links).map_err(|error| at(route, error))?;
        messages.push((route, message));
    }
    // A gateway has to be reachable before it can be one.
    messages.sort_by_key(|(route, _)| route.gateway.is_some());

    let gone: Vec<Route> = set
        .iter()
        .filter(|old| !wanted.contains(old))
        .cloned()
        .collect();
    for old in gone.iter().rev() {
        remove(netlink, &links, old)?;
        set.retain(|kept| kept != old);
    }

    let there = list(netlink)?;
    let kernels: Vec<_> = there.into_iter().filter(|found| found.is_kernels).collect();
    for (route, message) in messages {
        if kernels.iter().any(|found| route.is_said_by(&found.route)) {
            continue;
        }
        match netlink.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            result => result.attempt(|| format!("set route {route}"))?,
        }
        if !set.contains(route) {
            set.push(route.clone());
        }
    }
    Ok(())
}

fn remove(netlink: &mut Netlink, links: &[Link], route: &Route) -> Result<()> {
    // With its interface the route went too.
    let Ok(message) = route.message(links) else {
        return Ok(());
    };
    match netlink.change(RouteNetlinkMessage::DelRoute(message), 0) {
        // So it did when the interface was set down, or a container has removed it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)) => Ok(()),
        result => result.attempt(|| format!("remove route {route}")),
    }
}

fn at(route: &Route, error: Error) -> Error {
    match error {
        Error::NoInterface(which) => Error::NoInterface(format!("{which}, for route {route}")),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, gateway: &str, device: &str) -> Route {
        let destination = Some(destination)
            .filter(|text| !text.is_empty())
            .map(|text| Prefix::parse_destination(text).unwrap());
        let gateway: Option<IpAddr> = Some(gateway)
            .filter(|text| !text.is_empty())
            .map(|text| text.parse().unwrap());
        let ipv6 = destination
            .map(|d| d.address)
            .or(gateway)
            .is_some_and(|address| address.is_ipv6());
        Route {
            destination,
            ipv6,
            gateway,
            on_link: false,
            source: None,
            scope: 0,
            mtu: None,
            metric: None,
            device: device.into(),
        }
    }

    #[test]
    fn a_route_needs_a_way_and_one_family() {
        let refused = |route: Route| route.checked().unwrap_err().to_string();
        let error = refused(route("10.0.0.0/8", "", ""));
        assert!(error.contains("\"10.0.0.0/8\" has neither"), "{error}");
        assert!(refused(route("10.0.0.0/8", "fd00::1", "eth0")).contains("two families"));
        let mut on_link = route("10.0.0.0/8", "", "eth0");
        on_link.on_link = true;
        assert!(refused(on_link).contains("on-link"));
        let mut source = route("10.0.0.0/8", "", "eth0");
        source.source = Some("fd00::1".parse().unwrap());
        assert!(refused(source).contains("two families"));
    }

    #[test]
    fn the_network_of_all_addresses_is_the_default_route() {
        let plain = route("0.0.0.0/0", "10.0.0.1", "").checked().unwrap();
        assert_eq!(plain.destination, None);
        assert_eq!(plain.to_string(), "default via 10.0.0.1");
        let six = route("::/0", "fd00::1", "eth0").checked().unwrap();
        assert_eq!(six.to_string(), "default (IPv6) via fd00::1 dev eth0");
        let host = route("10.1.2.3/8", "", "eth0").checked().unwrap();
        assert_eq!(host.to_string(), "10.0.0.0/8 dev eth0");
    }
}
