//! `ConfigureNetwork`: the whole network of the guest in one call.

use std::collections::HashSet;
use std::net::IpAddr;

use agent_protocol::virtc::{
    ConfigureNetworkRequest, NetworkInterface, NetworkNeighbour, NetworkPrefix, NetworkRoute,
};

use super::interface::{Interface, Name, Place};
use super::link::Link;
use super::mac::Mac;
use super::neighbours::Neighbour;
use super::netlink::Netlink;
use super::prefix::{Prefix, address_of};
use super::routes::Route;
use super::{Configured, addresses, names, neighbours, routes};
use crate::error::{Error, Result};

/// A network as the host wants it, checked as far as it can be without the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) interfaces: Vec<Interface>,
    pub(super) routes: Vec<Route>,
    pub(super) neighbours: Vec<Neighbour>,
}

impl Wanted {
    pub(super) fn parse(request: &ConfigureNetworkRequest) -> Result<Self> {
        let interfaces = request.interfaces.iter().map(interface);
        let routes = request.routes.iter().map(route);
        let neighbours = request.neighbours.iter().map(neighbour);
        let wanted = Self {
            interfaces: interfaces.collect::<Result<_>>()?,
            routes: routes.collect::<Result<_>>()?,
            neighbours: neighbours.collect::<Result<_>>()?,
        };
        let mut seen = HashSet::new();
        for interface in &wanted.interfaces {
            let name = interface.name.as_str();
            if !seen.insert(name) {
                return Err(Error::Invalid {
                    field: "interface name",
                    value: name.to_owned(),
                    reason: "is there twice",
                });
            }
        }
        Ok(wanted)
    }

    /// Makes the network so. Blocks. What fails is named; what was made before it stays, so that
    /// the same call again goes on from there.
    pub(super) fn apply(self, netlink: &mut Netlink, configured: &mut Configured) -> Result<()> {
        let interfaces = set_interfaces(netlink, &self.interfaces)?;
        let before = std::mem::replace(&mut configured.interfaces, interfaces);
        let named = |index: &u32| configured.interfaces.contains(index);
        let mut gone = before.into_iter().filter(|index| !named(index)).peekable();
        if gone.peek().is_some() {
            let links = super::link::list(netlink)?;
            for index in gone {
                // Its device may have been taken out.
                if let Some(link) = links.iter().find(|link| link.index == index) {
                    addresses::replace(netlink, link, &[], &[])?;
                    link.set_up(netlink, false)?;
                }
            }
        }
        routes::replace(netlink, &mut configured.routes, self.routes)?;
        neighbours::replace(netlink, &mut configured.neighbours, self.neighbours)
    }
}

/// Finds all of them before any is changed; gives their indexes.
pub(super) fn set_interfaces(netlink: &mut Netlink, interfaces: &[Interface]) -> Result<Vec<u32>> {
    let mut found: Vec<(&Interface, Link)> = Vec::new();
    for interface in interfaces {
        let link = interface.find(netlink)?;
        if found.iter().any(|(_, other)| other.index == link.index) {
            return Err(Error::Invalid {
                field: "interface",
                value: interface.name.as_str().to_owned(),
                reason: "is one that another name was given to",
            });
        }
        found.push((interface, link));
    }
    let wanted: Vec<_> = found
        .iter()
        .map(|(interface, link)| (link.index, interface.name.as_str()))
        .collect();
    names::rename_all(netlink, &wanted)?;
    let links = super::link::list(netlink)?;
    for (interface, _) in &found {
        let link = super::link::by_name(&links, interface.name.as_str())?;
        interface.apply(netlink, link)?;
    }
    Ok(found.into_iter().map(|(_, link)| link.index).collect())
}

fn interface(message: &NetworkInterface) -> Result<Interface> {
    let name = Name::parse(&message.name)?;
    let mac = match message.mac.as_slice() {
        [] => None,
        bytes => Some(mac(bytes)?),
    };
    Ok(Interface {
        place: Place::new(&message.pci_path, mac, &name)?,
        mac,
        mtu: non_zero(message.mtu),
        addresses: message
            .addresses
            .iter()
            .map(own_address)
            .collect::<Result<_>>()?,
        without_route: message
            .without_route
            .iter()
            .map(own_address)
            .collect::<Result<_>>()?,
        no_arp: message.no_arp,
        name,
    })
}

fn route(message: &NetworkRoute) -> Result<Route> {
    let destination = message.destination.as_ref().map(prefix).transpose()?;
    let route = Route {
        destination,
        ipv6: message.ipv6 || destination.is_some_and(|to| to.address.is_ipv6()),
        gateway: optional_address(&message.gateway)?,
        on_link: message.on_link,
        source: optional_address(&message.source)?,
        scope: u8::try_from(message.scope).map_err(|_| Error::Invalid {
            field: "route scope",
            value: message.scope.to_string(),
            reason: "is none that the kernel has",
        })?,
        mtu: non_zero(message.mtu),
        metric: non_zero(message.metric),
        device: message.device.clone(),
    };
    route.checked()
}

fn neighbour(message: &NetworkNeighbour) -> Result<Neighbour> {
    let (state, flags) = Neighbour::state_and_flags(message.state, message.flags)?;
    Ok(Neighbour {
        address: address_of(&message.address)?,
        device: message.device.clone(),
        mac: mac(&message.mac)?,
        state,
        flags,
    })
}

/// An address without a mask has no network.
fn own_address(message: &NetworkPrefix) -> Result<Prefix> {
    match prefix(message)? {
        Prefix { length: 0, address } => Err(Error::Invalid {
            field: "address",
            value: address.to_string(),
            reason: "has no mask",
        }),
        prefix => Ok(prefix),
    }
}

fn prefix(message: &NetworkPrefix) -> Result<Prefix> {
    Prefix::new(address_of(&message.address)?, message.length)
}

fn optional_address(bytes: &[u8]) -> Result<Option<IpAddr>> {
    match bytes {
        [] => Ok(None),
        bytes => address_of(bytes).map(Some),
    }
}

fn mac(bytes: &[u8]) -> Result<Mac> {
    Mac::from_slice(bytes).ok_or_else(|| Error::Invalid {
        field: "MAC",
        value: format!("of {} bytes", bytes.len()),
        reason: "must have six bytes",
    })
}

fn non_zero(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use protobuf::MessageField;

    use super::*;

    fn interface(name: &str) -> NetworkInterface {
        NetworkInterface {
            pci_path: "13".into(),
            name: name.into(),
            ..NetworkInterface::default()
        }
    }

    fn refused(change: impl FnOnce(&mut ConfigureNetworkRequest)) -> String {
        let mut request = ConfigureNetworkRequest {
            interfaces: vec![interface("eth0")],
            ..ConfigureNetworkRequest::default()
        };
        assert!(Wanted::parse(&request).is_ok());
        change(&mut request);
        Wanted::parse(&request).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_changed() {
        let error = refused(|request| request.interfaces.push(interface("eth0")));
        assert!(error.contains("\"eth0\" is there twice"), "{error}");
        let error = refused(|request| request.interfaces[0].name = "1234567890123456".into());
        assert!(error.contains("longer than 15 bytes"), "{error}");
        let error = refused(|request| request.interfaces[0].mac = vec![2; 5]);
        assert!(error.contains("six bytes"), "{error}");
        let error = refused(|request| {
            request.interfaces[0].addresses = vec![NetworkPrefix {
                address: vec![10, 0, 0, 1],
                ..NetworkPrefix::default()
            }];
        });
        assert!(error.contains("\"10.0.0.1\" has no mask"), "{error}");
        let error = refused(|request| request.routes = vec![NetworkRoute::default()]);
        assert!(error.contains("\"default\" has neither"), "{error}");
        let error = refused(|request| {
            request.routes = vec![NetworkRoute {
                scope: 256,
                ..NetworkRoute::default()
            }];
        });
        assert!(error.contains("route scope"), "{error}");
        let error = refused(|request| request.neighbours = vec![NetworkNeighbour::default()]);
        assert!(error.contains("is no IP address"), "{error}");
    }

    #[test]
    fn a_destination_says_its_family_by_itself() {
        let request = ConfigureNetworkRequest {
            routes: vec![NetworkRoute {
                destination: MessageField::some(NetworkPrefix {
                    address: vec![0; 16],
                    ..NetworkPrefix::default()
                }),
                device: "eth0".into(),
                ..NetworkRoute::default()
            }],
            ..ConfigureNetworkRequest::default()
        };
        let wanted = Wanted::parse(&request).unwrap();
        assert_eq!(wanted.routes[0].to_string(), "default (IPv6) dev eth0");
    }
}
