use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, invalid};

/// An IP address with the length of its network's prefix.
///
/// ```
/// use vc_network::Cidr;
///
/// let cidr: Cidr = "10.1.2.3/24".parse()?;
/// assert_eq!((cidr.address().to_string(), cidr.prefix()), ("10.1.2.3".into(), 24));
/// assert!("10.1.2.3".parse::<Cidr>().is_err());
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Checks a prefix.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a prefix that is longer than the address: 32 or 128.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            let text = format!("{address}/{prefix}");
            return Err(invalid(
                "address",
                &text,
                "the prefix is longer than the address",
            ));
        }
        Ok(Self { address, prefix })
    }

    /// One of this crate's own, which a test has checked.
    pub(crate) fn constant(address: IpAddr, prefix: u8) -> Self {
        Self { address, prefix }
    }

    /// The address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Its network: the address without the bits behind the prefix.
    pub(crate) fn network(self) -> Self {
        let prefix = u32::from(self.prefix);
        let address = match self.address {
            IpAddr::V4(ip) => {
                let host = u32::MAX.checked_shr(prefix).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & !host))
            }
            IpAddr::V6(ip) => {
                let host = u128::MAX.checked_shr(prefix).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !host))
            }
        };
        Self { address, ..self }
    }

    /// Whether it is one host's.
    pub(crate) fn is_host(self) -> bool {
        self.prefix == if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The length of the prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether some address is in both networks.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// Whether an address is in the network.
    ///
    /// ```
    /// let network: vc_network::Cidr = "10.0.2.0/23".parse()?;
    /// assert!(network.contains([10, 0, 3, 255].into()));
    /// assert!(!network.contains([10, 0, 4, 0].into()));
    /// # Ok::<(), vc_network::Error>(())
    /// ```
    pub fn contains(self, address: IpAddr) -> bool {
        let beyond = |bits: u32| bits - u32::from(self.prefix);
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.checked_shr(beyond(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.checked_shr(beyond(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason| invalid("address", text, reason);
        let (address, prefix) = text
            .split_once('/')
            .ok_or_else(|| refuse("it has no mask, such as /24"))?;
        let address = address
            .parse()
            .map_err(|_| refuse("what is before the '/' is no IP address"))?;
        // A sign is no part of a number of bits.
        if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse("what is after the '/' is no number of bits"));
        }
        let prefix = prefix
            .parse()
            .map_err(|_| refuse("what is after the '/' is no number of bits"))?;
        Self::new(address, prefix)
    }
}

impl TryFrom<String> for Cidr {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LinkAddress {
    /// The address and its network.
    pub cidr: Cidr,
    /// The other end, where the address belongs to a point-to-point connection. The prefix is then
    /// that of the other end's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// Whether no route leads directly to its network, as the kernel makes one for an address: somebody
    /// has taken it away, or never wanted it.
    #[serde(default)]
    pub without_route: bool,
}

impl LinkAddress {
    /// Whether it is an IPv6 address that every link makes for itself (`fe80::/10`).
    pub fn is_link_local(&self) -> bool {
        matches!(self.cidr.address, IpAddr::V6(address) if address.is_unicast_link_local())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wrong_forms_are_refused_with_their_reason() {
        for (text, reason) in [
            ("10.0.0.1", "has no mask"),
            ("10.0.0/8", "no IP address"),
            ("10.0.0.1/33", "longer than the address"),
            ("fd00::1/129", "longer than the address"),
            ("10.0.0.1/", "no number of bits"),
            ("10.0.0.1/+8", "no number of bits"),
            ("10.0.0.1/999", "no number of bits"),
        ] {
            let error = text.parse::<Cidr>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn only_what_every_ipv6_link_has_is_link_local() {
        let is = |text: &str| {
            let cidr = text.parse().unwrap();
            let (peer, without_route) = (None, false);
            let address = LinkAddress {
                cidr,
                peer,
                without_route,
            };
            address.is_link_local()
        };
        assert!(is("fe80::1/64"));
        assert!(!is("fd00::1/64") && !is("169.254.1.1/16"));
    }

    #[test]
    fn a_network_has_no_bits_behind_its_prefix() {
        for (text, network) in [
            ("10.1.2.3/24", "10.1.2.0/24"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("fd00::1:2/112", "fd00::1:0/112"),
            ("fd00::1/0", "::/0"),
        ] {
            let cidr: Cidr = text.parse().unwrap();
            assert_eq!(cidr.network().to_string(), network);
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(address: IpAddr, prefix: u8) {
            if let Ok(cidr) = Cidr::new(address, prefix) {
                prop_assert_eq!(cidr.to_string().parse::<Cidr>().unwrap(), cidr);
            }
        }
    }
}
