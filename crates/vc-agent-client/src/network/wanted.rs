//! What the host asks for, and its messages.

use std::net::IpAddr;

use agent_protocol::types;
use agent_protocol::virtc::{
    ConfigureNetworkRequest, NetworkInterface, NetworkNeighbour, NetworkPrefix, NetworkRoute,
};
use protobuf::EnumOrUnknown;

/// The flag of an interface that asks nobody for MACs, as in linux/if.h.
pub(super) const IFF_NOARP: u32 = 1 << 7;

/// The flag of a route whose gateway is reached directly, as in linux/rtnetlink.h.
pub(super) const RTNH_F_ONLINK: u32 = 4;

/// The network of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestNetwork {
    /// The interfaces, each with the name that it is to have.
    pub interfaces: Vec<InterfaceConfig>,
    /// The routes, in any order.
    pub routes: Vec<RouteConfig>,
    /// Neighbours whose MACs are known.
    pub neighbours: Vec<NeighbourConfig>,
}

/// An address, and how many of its first bits are the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpPrefix {
    /// The address.
    pub address: IpAddr,
    /// Bits: at most 32, or 128.
    pub length: u8,
}

/// An interface of the guest as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// Where its device is: `SLOT.FUNCTION` in base 16 on each bus from the root bus on, with `/`
    /// between. Empty: the interface is found by its MAC.
    pub pci_path: String,
    /// What it is to be called.
    pub name: String,
    /// The MAC that the device has.
    pub mac: Option<[u8; 6]>,
    /// `None`: as it is.
    pub mtu: Option<u32>,
    /// Its addresses. Others are taken from it, but those that the guest's kernel makes.
    pub addresses: Vec<IpPrefix>,
    /// Of them: those to whose network the guest's kernel makes no route.
    pub without_route: Vec<IpPrefix>,
    /// Nobody is asked for the MACs of neighbours.
    pub no_arp: bool,
}

/// A route of the guest's main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// `None`: the default route.
    pub destination: Option<IpPrefix>,
    /// Whether it is IPv6's.
    pub ipv6: bool,
    /// The next router.
    pub gateway: Option<IpAddr>,
    /// The gateway is reached directly, whatever the addresses say.
    pub on_link: bool,
    /// Which of its own addresses the guest uses.
    pub source: Option<IpAddr>,
    /// As the kernel has it: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// `None`: the interface's.
    pub mtu: Option<u32>,
    /// `None`: the kernel's default.
    pub metric: Option<u32>,
    /// The interface's name in the guest. Empty: where the gateway is.
    pub device: String,
}

/// A neighbour whose MAC is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourConfig {
    /// Its address.
    pub address: IpAddr,
    /// The interface's name in the guest.
    pub device: String,
    /// Its MAC.
    pub mac: [u8; 6],
    /// `NUD_*` as the kernel has it; 0: permanent.
    pub state: u16,
    /// `NTF_*` as the kernel has it.
    pub flags: u8,
}

impl GuestNetwork {
    pub(super) fn message(&self) -> ConfigureNetworkRequest {
        ConfigureNetworkRequest {
            interfaces: self
                .interfaces
                .iter()
                .map(InterfaceConfig::message)
                .collect(),
            routes: self.routes.iter().map(RouteConfig::message).collect(),
            neighbours: self
                .neighbours
                .iter()
                .map(NeighbourConfig::message)
                .collect(),
            ..ConfigureNetworkRequest::default()
        }
    }
}

impl IpPrefix {
    fn message(&self) -> NetworkPrefix {
        NetworkPrefix {
            address: bytes(self.address),
            length: self.length.into(),
            ..NetworkPrefix::default()
        }
    }
}

impl InterfaceConfig {
    /// An interface of this name, with nothing else.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            pci_path: String::new(),
            name: name.into(),
            mac: None,
            mtu: None,
            addresses: Vec::new(),
            without_route: Vec::new(),
            no_arp: false,
        }
    }

    fn message(&self) -> NetworkInterface {
        NetworkInterface {
            pci_path: self.pci_path.clone(),
            name: self.name.clone(),
            mac: self.mac.map(Vec::from).unwrap_or_default(),
            mtu: self.mtu.unwrap_or(0),
            addresses: self.addresses.iter().map(IpPrefix::message).collect(),
            without_route: self.without_route.iter().map(IpPrefix::message).collect(),
            no_arp: self.no_arp,
            ..NetworkInterface::default()
        }
    }

    pub(super) fn kata_message(&self) -> types::Interface {
        let addresses = self.addresses.iter().map(|prefix| types::IPAddress {
            family: family(prefix.address.is_ipv6()),
            address: prefix.address.to_string(),
            mask: prefix.length.to_string(),
            ..types::IPAddress::default()
        });
        types::Interface {
            device: self.name.clone(),
            name: self.name.clone(),
            IPAddresses: addresses.collect(),
            mtu: self.mtu.unwrap_or(0).into(),
            hwAddr: self.mac.map(mac_text).unwrap_or_default(),
            devicePath: self.pci_path.clone(),
            raw_flags: if self.no_arp { IFF_NOARP } else { 0 },
            ..types::Interface::default()
        }
    }
}

impl RouteConfig {
    /// The default route by a gateway.
    pub fn default_by(gateway: IpAddr, device: impl Into<String>) -> Self {
        Self {
            destination: None,
            ipv6: gateway.is_ipv6(),
            gateway: Some(gateway),
            on_link: false,
            source: None,
            scope: 0,
            mtu: None,
            metric: None,
            device: device.into(),
        }
    }

    fn message(&self) -> NetworkRoute {
        NetworkRoute {
            destination: self.destination.as_ref().map(IpPrefix::message).into(),
            ipv6: self.ipv6,
            gateway: self.gateway.map(bytes).unwrap_or_default(),
            on_link: self.on_link,
            source: self.source.map(bytes).unwrap_or_default(),
            scope: self.scope.into(),
            mtu: self.mtu.unwrap_or(0),
            metric: self.metric.unwrap_or(0),
            device: self.device.clone(),
            ..NetworkRoute::default()
        }
    }

    pub(super) fn kata_message(&self) -> types::Route {
        let text = |address: Option<IpAddr>| address.map(|ip| ip.to_string()).unwrap_or_default();
        let destination = self
            .destination
            .map(|to| format!("{}/{}", to.address, to.length));
        types::Route {
            dest: destination.unwrap_or_default(),
            gateway: text(self.gateway),
            device: self.device.clone(),
            source: text(self.source),
            scope: self.scope.into(),
            family: family(self.ipv6),
            flags: if self.on_link { RTNH_F_ONLINK } else { 0 },
            mtu: self.mtu.unwrap_or(0),
            ..types::Route::default()
        }
    }
}

impl NeighbourConfig {
    fn message(&self) -> NetworkNeighbour {
        NetworkNeighbour {
            address: bytes(self.address),
            device: self.device.clone(),
            mac: self.mac.to_vec(),
            state: self.state.into(),
            flags: self.flags.into(),
            ..NetworkNeighbour::default()
        }
    }
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn family(ipv6: bool) -> EnumOrUnknown<types::IPFamily> {
    EnumOrUnknown::new(match ipv6 {
        true => types::IPFamily::v6,
        false => types::IPFamily::v4,
    })
}

fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_messages_say_the_same() {
        let mut eth0 = InterfaceConfig::new("eth0");
        eth0.mac = Some([2, 0, 0, 0, 0, 0xff]);
        eth0.addresses = vec![IpPrefix {
            address: [10, 0, 0, 2].into(),
            length: 24,
        }];
        eth0.no_arp = true;
        let (ours, katas) = (eth0.message(), eth0.kata_message());
        assert_eq!(katas.hwAddr, "02:00:00:00:00:ff");
        assert_eq!(ours.mac, [2, 0, 0, 0, 0, 0xff]);
        assert_eq!(ours.addresses[0].address, [10, 0, 0, 2]);
        assert_eq!(katas.IPAddresses[0].mask, "24");
        assert_eq!((katas.raw_flags, ours.no_arp), (IFF_NOARP, true));

        let mut route = RouteConfig::default_by("fd00::1".parse().unwrap(), "eth0");
        route.on_link = true;
        let (ours, katas) = (route.message(), route.kata_message());
        assert!(ours.destination.is_none() && katas.dest.is_empty());
        assert!(ours.ipv6 && katas.family == family(true));
        assert_eq!((ours.on_link, katas.flags), (true, RTNH_F_ONLINK));
        assert_eq!(
            (ours.gateway.len(), katas.gateway.as_str()),
            (16, "fd00::1")
        );
    }
}
