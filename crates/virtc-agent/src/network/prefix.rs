//! An address with the length of its network's part.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;

use crate::error::{Error, Result};

/// An address, and how many of its first bits are the network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) address: IpAddr,
    pub(super) length: u8,
}

impl Prefix {
    pub(super) fn new(address: IpAddr, length: u32) -> Result<Self> {
        match u8::try_from(length) {
            Ok(length) if length <= bits(address) => Ok(Self { address, length }),
            _ => Err(invalid(
                format!("{address}/{length}"),
                "has more bits than an address",
            )),
        }
    }

    /// Reads an address and its mask as Kata's host side writes them: `24`, or `255.255.255.0`.
    pub(super) fn parse(address: &str, mask: &str) -> Result<Self> {
        let ip = parse_address(address)?;
        if mask.is_empty() {
            return Err(invalid(address.to_owned(), "has no mask"));
        }
        if let Ok(length) = mask.parse() {
            return Self::new(ip, length);
        }
        let bits = match mask.parse() {
            Ok(IpAddr::V4(mask)) if ip.is_ipv4() => u32::from(mask),
            _ => {
                return Err(invalid(
                    format!("{address}/{mask}"),
                    "has a mask that is none",
                ));
            }
        };
        if bits.leading_ones() + bits.trailing_zeros() < u32::BITS {
            return Err(invalid(
                format!("{address}/{mask}"),
                "has a mask with holes",
            ));
        }
        Self::new(ip, bits.leading_ones())
    }

    /// Reads `10.0.0.0/8`; without a length it is one host.
    pub(super) fn parse_destination(text: &str) -> Result<Self> {
        match text.split_once('/') {
            Some((address, length)) => Self::parse(address, length),
            None => parse_address(text).map(Self::host),
        }
    }

    fn host(address: IpAddr) -> Self {
        Self {
            address,
            length: bits(address),
        }
    }

    /// This without the bits that are the host's.
    pub(super) fn network(self) -> Self {
        let shift = u32::from(bits(self.address) - self.length);
        let address = match self.address {
            IpAddr::V4(ip) => IpAddr::V4(
                (ip.to_bits()
                    .checked_shr(shift)
                    .unwrap_or(0)
                    .checked_shl(shift)
                    .unwrap_or(0))
                .into(),
            ),
            IpAddr::V6(ip) => IpAddr::V6(
                (ip.to_bits()
                    .checked_shr(shift)
                    .unwrap_or(0)
                    .checked_shl(shift)
                    .unwrap_or(0))
                .into(),
            ),
        };
        Self { address, ..self }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Reads an address.
pub(super) fn parse_address(text: &str) -> Result<IpAddr> {
    text.parse()
        .map_err(|_| invalid(text.to_owned(), "is no IP address"))
}

/// Reads an address of four or sixteen bytes.
pub(super) fn address_of(bytes: &[u8]) -> Result<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Ok(bytes.into());
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => Ok(bytes.into()),
        Err(_) => Err(invalid(
            format!("of {} bytes", bytes.len()),
            "is no IP address",
        )),
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn invalid(value: String, reason: &'static str) -> Error {
    Error::Invalid {
        field: "address",
        value,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(address: &str, mask: &str) -> String {
        match Prefix::parse(address, mask) {
            Ok(prefix) => prefix.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_mask_is_a_length_or_bits_without_holes() {
        assert_eq!(text("10.0.0.1", "24"), "10.0.0.1/24");
        assert_eq!(text("10.0.0.1", "255.255.0.0"), "10.0.0.1/16");
        assert_eq!(text("10.0.0.1", "0.0.0.0"), "10.0.0.1/0");
        assert_eq!(text("fd00::1", "64"), "fd00::1/64");
        for (address, mask, reason) in [
            ("10.0.0.1", "", "has no mask"),
            ("10.0.0.1", "33", "has more bits"),
            ("10.0.0.1", "999999999999", "has a mask that is none"),
            ("fd00::1", "129", "has more bits"),
            ("fd00::1", "255.0.0.0", "has a mask that is none"),
            ("10.0.0.1", "255.0.255.0", "has a mask with holes"),
            ("10.0.0", "8", "is no IP address"),
        ] {
            let error = text(address, mask);
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_destination_without_a_length_is_one_host() {
        let text = |text| {
            Prefix::parse_destination(text)
                .unwrap()
                .network()
                .to_string()
        };
        assert_eq!(text("10.0.0.1"), "10.0.0.1/32");
        assert_eq!(text("10.1.2.3/8"), "10.0.0.0/8");
        assert_eq!(text("1.2.3.4/0"), "0.0.0.0/0");
        assert_eq!(text("fd00::1/0"), "::/0");
        assert_eq!(text("fd00:1::1/32"), "fd00:1::/32");
        assert!(Prefix::parse_destination("10.0.0.0/").is_err());
    }

    #[test]
    fn an_address_has_four_or_sixteen_bytes() {
        assert_eq!(address_of(&[10, 0, 0, 1]).unwrap().to_string(), "10.0.0.1");
        assert!(address_of(&[0; 16]).unwrap().is_ipv6());
        assert!(address_of(&[]).is_err() && address_of(&[0; 5]).is_err());
    }
}
