use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::ipv6::Subnet6;
use crate::address::Cidr;
use crate::error::{Error, Result, invalid};
use crate::interface_name::InterfaceName;
use crate::mac::MacAddress;

/// The longest name of a bridge: those of its ports are made of it, a dash and a number of the
/// subnet.
const BRIDGE_BYTES_MAX: usize = 6;

/// Prefixes of a subnet: larger ones have numbers that are too long for the names of links, smaller
/// ones hardly an address.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=29;

/// The bridge and the subnet behind which machines get addresses.
///
/// ```
/// use vc_network::NatConfig;
///
/// let config = NatConfig::default();
/// assert_eq!(config.bridge().as_str(), "virtc0");
/// assert_eq!(config.subnet().to_string(), "10.89.199.0/24");
/// assert_eq!(config.gateway().to_string(), "10.89.199.1");
/// assert!(NatConfig::new("virtc1".parse()?, "10.1.0.7/24".parse()?).is_err());
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct NatConfig {
    bridge: InterfaceName,
    subnet: Cidr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subnet6: Option<Subnet6>,
    #[serde(skip_serializing)]
    network: Ipv4Addr,
}

#[derive(Deserialize)]
struct Unchecked {
    bridge: InterfaceName,
    subnet: Cidr,
    #[serde(default)]
    subnet6: Option<Subnet6>,
}

impl TryFrom<Unchecked> for NatConfig {
    type Error = Error;

    fn try_from(unchecked: Unchecked) -> Result<Self> {
        let config = Self::new(unchecked.bridge, unchecked.subnet)?;
        Ok(Self {
            subnet6: unchecked.subnet6,
            ..config
        })
    }
}

impl NatConfig {
    /// Checks a bridge's name and a subnet. There is none of IPv6.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name that is longer than six bytes, or has others than lower-case
    /// letters and digits, or does not begin with a letter; for a subnet that is not one of IPv4
    /// with a prefix from 8 to 29 and no bit behind it, or is a loopback, link-local, multicast or
    /// reserved one.
    pub fn new(bridge: InterfaceName, subnet: Cidr) -> Result<Self> {
        let name = bridge.as_str();
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !plain || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
            let reason = "lower-case letters and digits are expected, and a letter first";
            return Err(invalid("name of a bridge", name, reason));
        }
        if name.len() > BRIDGE_BYTES_MAX {
            return Err(invalid(
                "name of a bridge",
                name,
                "it is longer than 6 bytes",
            ));
        }
        let text = subnet.to_string();
        let refuse = |reason| Err(invalid("subnet", &text, reason));
        let IpAddr::V4(network) = subnet.address() else {
            return refuse("one of IPv4 is expected");
        };
        if !PREFIXES.contains(&subnet.prefix()) {
            return refuse("a prefix from 8 to 29 is expected");
        }
        if network.to_bits() & hosts(subnet) != 0 {
            return refuse("the address has bits behind the prefix");
        }
        if network.is_loopback() || network.is_link_local() || network.octets()[0] >= 224 {
            return refuse("it is no subnet of hosts");
        }
        if network.octets()[0] == 0 {
            return refuse("it is no subnet of hosts");
        }
        Ok(Self {
            bridge,
            subnet,
            subnet6: None,
            network,
        })
    }

    /// The same with a subnet of IPv6, which is used where the host has IPv6 and a default route of
    /// it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for one that is not unique local or global, with a prefix from 48 to 96
    /// and no bit behind it.
    ///
    /// ```
    /// # use vc_network::NatConfig;
    /// let config = NatConfig::new("virtc1".parse()?, "10.1.0.0/24".parse()?)?;
    /// let config = config.with_ipv6("fd12:3456:789a::/64".parse()?)?;
    /// assert!(config.subnet_ipv6().is_some());
    /// # Ok::<(), vc_network::Error>(())
    /// ```
    pub fn with_ipv6(self, subnet: Cidr) -> Result<Self> {
        Ok(Self {
            subnet6: Some(subnet.try_into()?),
            ..self
        })
    }

    /// The bridge's name.
    pub fn bridge(&self) -> &InterfaceName {
        &self.bridge
    }

    /// The subnet.
    pub fn subnet(&self) -> Cidr {
        self.subnet
    }

    /// The subnet of IPv6, if there is one.
    pub fn subnet_ipv6(&self) -> Option<Cidr> {
        self.subnet6.map(Cidr::from)
    }

    /// The same without a subnet of IPv6.
    pub(super) fn without_ipv6(&self) -> Self {
        Self {
            subnet6: None,
            ..self.clone()
        }
    }

    /// The bridge's own address, the first of the subnet.
    pub fn gateway(&self) -> Ipv4Addr {
        self.number(1)
    }

    /// Addresses for machines: all but the network's, the gateway's and the broadcast one.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        (2..hosts(self.subnet)).map(|number| self.number(number))
    }

    fn number(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | number)
    }

    /// The host's end of the veth of this address.
    pub(super) fn port_name(&self, address: Ipv4Addr) -> Result<InterfaceName> {
        let number = address.to_bits() & hosts(self.subnet);
        InterfaceName::new(format!("{}-{number}", self.bridge))
    }

    /// The hardware address of the machine with this address: nobody needs to ask for it.
    pub(super) fn mac(&self, address: Ipv4Addr) -> Result<MacAddress> {
        let [a, b, c, d] = address.octets();
        MacAddress::new([0x02, 0x76, a, b, c, d])
    }

    /// The address of IPv6 that goes with one of IPv4: that of the same number.
    pub(super) fn beside(&self, subnet: Subnet6, address: Ipv4Addr) -> Ipv6Addr {
        subnet.address(address.to_bits() & hosts(self.subnet))
    }

    /// An address with the subnet's prefix.
    pub(super) fn with_prefix(&self, address: Ipv4Addr) -> Result<Cidr> {
        Cidr::new(address.into(), self.subnet.prefix())
    }
}

impl Default for NatConfig {
    /// The bridge `virtc0` and the subnets `10.89.199.0/24` and `fd76:6331:c7::/64`.
    fn default() -> Self {
        let network = Ipv4Addr::new(10, 89, 199, 0);
        Self {
            bridge: InterfaceName::constant("virtc0"),
            subnet: Cidr::constant(network.into(), 24),
            subnet6: Some(Subnet6::constant(
                Ipv6Addr::new(0xfd76, 0x6331, 0xc7, 0, 0, 0, 0, 0),
                64,
            )),
            network,
        }
    }
}

/// The bits behind the prefix.
fn hosts(subnet: Cidr) -> u32 {
    u32::MAX
        .checked_shr(u32::from(subnet.prefix()))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_bridge_with_a_subnet_is_refused() {
        for (bridge, subnet) in [
            ("virtc00", "10.1.0.0/24"),
            ("Virtc", "10.1.0.0/24"),
            ("0virtc", "10.1.0.0/24"),
            ("a;b", "10.1.0.0/24"),
            ("virtc0", "10.1.0.1/24"),
            ("virtc0", "10.1.0.0/30"),
            ("virtc0", "0.0.0.0/8"),
            ("virtc0", "10.0.0.0/7"),
            ("virtc0", "127.0.0.0/8"),
            ("virtc0", "169.254.0.0/16"),
            ("virtc0", "224.0.0.0/8"),
            ("virtc0", "fd00::/24"),
        ] {
            let config = NatConfig::new(bridge.parse().unwrap(), subnet.parse().unwrap());
            assert!(config.is_err(), "{bridge} {subnet}");
        }
        let default = NatConfig::default();
        let same = NatConfig::new("virtc0".parse().unwrap(), default.subnet()).unwrap();
        assert_eq!(same.subnet_ipv6(), None);
        let same = same.with_ipv6(default.subnet_ipv6().unwrap()).unwrap();
        assert_eq!(same, default);
        let text = serde_json::to_string(&default).unwrap();
        assert_eq!(serde_json::from_str::<NatConfig>(&text).unwrap(), default);
        assert!(serde_json::from_str::<NatConfig>(&text.replace("/24", "/30")).is_err());
        assert!(serde_json::from_str::<NatConfig>(&text.replace("/64", "/97")).is_err());
    }

    #[test]
    fn the_largest_number_has_a_name_and_the_smallest_subnet_addresses() {
        let large = NatConfig::new("virtc0".parse().unwrap(), "10.0.0.0/8".parse().unwrap());
        let name = large.unwrap().port_name(Ipv4Addr::new(10, 255, 255, 254));
        assert_eq!(name.unwrap().as_str(), "virtc0-16777214");
        let small = NatConfig::new("virtc0".parse().unwrap(), "10.1.0.8/29".parse().unwrap());
        let small = small.unwrap();
        let addresses: Vec<_> = small.addresses().map(|one| one.octets()[3]).collect();
        assert_eq!(addresses, [10, 11, 12, 13, 14]);
        assert_eq!(small.gateway().octets()[3], 9);
        let subnet = NatConfig::default().subnet6.unwrap();
        let beside = small.beside(subnet, Ipv4Addr::new(10, 1, 0, 10));
        assert_eq!(beside.to_string(), "fd76:6331:c7::2");
    }
}
