//! IPv6 behind the bridge: its subnet, and whether the host can give it.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::bridge;
use super::config::NatConfig;
use super::forwarding::{self, Family};
use super::rules;
use crate::address::Cidr;
use crate::error::{Error, Result, invalid, io};
use crate::namespace::Namespace;
use crate::netlink::Netlink;
use crate::nft;
use crate::route;

/// Prefixes of a subnet: behind the longest there is room for the number of every address of IPv4,
/// and for one more.
const PREFIXES: std::ops::RangeInclusive<u8> = 48..=96;

/// The number of the address that stands for the host's loopback one: behind all of those of
/// machines, which are numbered within a subnet of IPv4.
const LOOPBACK_NUMBER: u32 = 1 << 24;

/// The subnet of IPv6 behind a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Cidr", into = "Cidr")]
pub(super) struct Subnet6 {
    network: Ipv6Addr,
    prefix: u8,
}

impl TryFrom<Cidr> for Subnet6 {
    type Error = Error;

    fn try_from(subnet: Cidr) -> Result<Self> {
        let text = subnet.to_string();
        let refuse = |reason| Err(invalid("subnet", &text, reason));
        let IpAddr::V6(network) = subnet.address() else {
            return refuse("one of IPv6 is expected");
        };
        let prefix = subnet.prefix();
        if !PREFIXES.contains(&prefix) {
            return refuse("a prefix from 48 to 96 is expected");
        }
        if network.to_bits() << prefix != 0 {
            return refuse("the address has bits behind the prefix");
        }
        if !(network.is_unique_local() || network.octets()[0] >> 5 == 1) {
            return refuse("it is neither unique local (fd00::/8) nor global");
        }
        Ok(Self { network, prefix })
    }
}

impl From<Subnet6> for Cidr {
    fn from(subnet: Subnet6) -> Self {
        Cidr::constant(subnet.network.into(), subnet.prefix)
    }
}

impl Subnet6 {
    /// One of this crate's own, which a test has checked.
    pub(super) const fn constant(network: Ipv6Addr, prefix: u8) -> Self {
        Self { network, prefix }
    }

    /// The address of this number.
    pub(super) fn address(self, number: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.network.to_bits() | u128::from(number))
    }

    /// The bridge's own address, the first one.
    pub(super) fn gateway(self) -> Ipv6Addr {
        self.address(1)
    }

    /// From which address a machine sees what the host's own loopback address has sent.
    pub(super) fn loopback(self) -> Ipv6Addr {
        self.address(LOOPBACK_NUMBER)
    }

    /// An address with the subnet's prefix.
    pub(super) fn with_prefix(self, address: Ipv6Addr) -> Cidr {
        Cidr::constant(address.into(), self.prefix)
    }
}

/// Whether machines have IPv6, which is decided with the first lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ipv6 {
    /// They have.
    Used {
        /// Whether the host did not forward.
        forwarding_was_off: bool,
        /// The links that did, all the same; and `default`.
        forwarding_links: Vec<String>,
    },
    /// They have not.
    Left {
        /// Why.
        reason: String,
    },
}

impl Default for Ipv6 {
    /// That of a state that was written when there was none.
    fn default() -> Self {
        Self::left("the network was made without")
    }
}

impl Ipv6 {
    fn left(reason: impl Into<String>) -> Self {
        Self::Left {
            reason: reason.into(),
        }
    }

    /// Looks whether the host has IPv6 and a way to anywhere; changes nothing.
    pub(super) fn of_host(
        host: &Namespace,
        netlink: &mut Netlink,
        config: &NatConfig,
    ) -> Result<Self> {
        let Some(subnet) = config.subnet6 else {
            return Ok(Self::left("the configuration has no subnet of it"));
        };
        if let Some(by) = bridge::taken_by(netlink, subnet.into())? {
            let subnet = Cidr::from(subnet);
            return Ok(Self::left(format!("{by} of the host is in {subnet}")));
        }
        let links = route::default_links6(netlink).map_err(io("list the routes of", "the host"))?;
        if links.is_empty() {
            return Ok(Self::left("the host has no default route of it"));
        }
        let forwarding_was_off = match forwarding::is_on(host, Family::Ipv6) {
            Ok(on) => !on,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::left("the host's kernel has none"));
            }
            Err(error) => return Err(error),
        };
        // A host that forwards does not listen to routers any more, and forgets what they have said.
        // Whoever else sets a default route may have its addresses from them all the same.
        if forwarding_was_off {
            for link in links {
                if forwarding::listens_to_routers(host, link, netlink)? {
                    return Ok(Self::left(
                        "the host does not forward it, and would not listen any more to routers on \
                         the link of its default route if it did (set net.ipv6.conf.LINK.accept_ra \
                         to 2, or to 0 where no router tells anything)",
                    ));
                }
            }
        }
        match nft::try_out(host, &rules::probe6(config, subnet)) {
            Ok(()) => {}
            Err(Error::Program { said, .. }) => {
                tracing::debug!(said, "no translation of IPv6");
                return Ok(Self::left("the host's kernel does not translate it"));
            }
            Err(error) => return Err(error),
        }
        Ok(Self::Used {
            forwarding_was_off,
            forwarding_links: match forwarding_was_off {
                true => forwarding::links6(host)?,
                false => Vec::new(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_subnet_is_refused() {
        let subnet = |text: &str| Subnet6::try_from(text.parse::<Cidr>().unwrap());
        for bad in [
            "10.1.0.0/24",
            "fd00::/47",
            "fd00::/97",
            "fd00::1/64",
            "fe80::/64",
            "ff02::/64",
            "::/64",
        ] {
            assert!(subnet(bad).is_err(), "{bad}");
        }
        let subnet = subnet("2001:db8::/96").unwrap();
        assert_eq!(subnet.loopback().to_string(), "2001:db8::100:0");
        assert_eq!(subnet.address(0xff_fffe).to_string(), "2001:db8::ff:fffe");
    }
}
