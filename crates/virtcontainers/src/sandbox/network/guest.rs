//! From what was found in a namespace to what the guest is to have.

use std::collections::BTreeMap;

use vc_agent_client::network::{
    GuestNetwork, InterfaceConfig, IpPrefix, NeighbourConfig, RouteConfig,
};
use vc_network::{Cidr, Link, Neighbour, Route, Scan};

/// A link's device in the guest.
pub(super) struct GuestDevice {
    /// Where the guest finds it.
    pub(super) pci_path: String,
    /// Whether it is a card that has a hardware address of its own.
    pub(super) own_mac: bool,
}

/// The guest's network: that of the namespace, as far as its links have a device, by the link's index.
pub(super) fn network(scan: &Scan, devices: &BTreeMap<u32, GuestDevice>) -> GuestNetwork {
    let name = |index: u32| {
        let link = scan.links.iter().find(|link| link.index == index)?;
        devices.contains_key(&index).then(|| link.name.to_string())
    };
    GuestNetwork {
        interfaces: scan
            .links
            .iter()
            .filter_map(|link| Some(interface(link, devices.get(&link.index)?)))
            .collect(),
        routes: scan
            .routes
            .iter()
            .filter_map(|one| Some(route(one, name(one.link)?)))
            .collect(),
        neighbours: scan
            .neighbours
            .iter()
            .filter_map(|one| Some(neighbour(one, name(one.link)?)))
            .collect(),
    }
}

fn interface(link: &Link, device: &GuestDevice) -> InterfaceConfig {
    InterfaceConfig {
        pci_path: device.pci_path.clone(),
        name: link.name.to_string(),
        mac: link.mac.filter(|_| !device.own_mac).map(|mac| mac.octets()),
        mtu: Some(link.mtu),
        addresses: link
            .addresses
            .iter()
            .map(|address| prefix(address.cidr))
            .collect(),
        without_route: link
            .addresses
            .iter()
            .filter(|address| address.without_route)
            .map(|address| prefix(address.cidr))
            .collect(),
        no_arp: link.no_arp,
    }
}

fn route(route: &Route, device: String) -> RouteConfig {
    let any = route.destination.prefix() == 0;
    RouteConfig {
        destination: (!any).then(|| prefix(route.destination)),
        ipv6: route.destination.address().is_ipv6(),
        gateway: route.gateway,
        on_link: route.on_link,
        source: route.source,
        scope: route.scope.into(),
        mtu: route.mtu,
        metric: route.metric,
        device,
    }
}

fn neighbour(neighbour: &Neighbour, device: String) -> NeighbourConfig {
    /// `NTF_ROUTER`, from linux/neighbour.h.
    const ROUTER: u8 = 1 << 7;
    NeighbourConfig {
        address: neighbour.address,
        device,
        mac: neighbour.mac.octets(),
        state: 0,
        flags: if neighbour.router { ROUTER } else { 0 },
    }
}

fn prefix(cidr: Cidr) -> IpPrefix {
    IpPrefix {
        address: cidr.address(),
        length: cidr.prefix(),
    }
}
