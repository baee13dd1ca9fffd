use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Where a device is on the host's PCI: domain, bus, slot and function.
///
/// ```
/// use vc_types::PciAddress;
///
/// let address: PciAddress = "0000:03:00.1".parse()?;
/// assert_eq!(address.to_string(), "0000:03:00.1");
/// assert!("03:00.1,x-igd".parse::<PciAddress>().is_err());
/// # Ok::<(), vc_types::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    slot: u8,
    function: u8,
}

impl FromStr for PciAddress {
    type Err = Error;

    /// The kernel's form; nothing else, since it is a part of paths and command lines.
    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| Error::InvalidPciAddress {
            text: crate::one_line(text),
        })
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (domain, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (slot, function) = rest.split_once('.')?;
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let fits = digits.contains(&text.len()) && text.bytes().all(lower_hex);
        fits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
    };
    let small = |text, digits, max| {
        let number = u8::try_from(number(text, digits..=digits)?).ok()?;
        (number <= max).then_some(number)
    };
    let address = PciAddress {
        domain: number(domain, 4..=8)?,
        bus: small(bus, 2, u8::MAX)?,
        slot: small(slot, 2, 31)?,
        function: small(function, 1, 7)?,
    };
    // One form alone.
    (address.to_string() == text).then_some(address)
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            slot,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{slot:02x}.{function}")
    }
}

impl TryFrom<String> for PciAddress {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_kernels_form_is_one() {
        for bad in [
            "",
            "03:00.0",
            "0000:03:00",
            "0000:03:20.0",
            "0000:03:00.8",
            "0000:3:00.0",
            "0000:03:00.0\n",
            "0000:0A:00.0",
            "00000:03:00.0",
            "../0000:03:00.0",
        ] {
            assert!(bad.parse::<PciAddress>().is_err(), "{bad:?}");
        }
        assert!("10000:e1:1f.7".parse::<PciAddress>().is_ok());
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(text in "[0-9a-f]{4,5}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-9]|.{0,16}") {
            if let Ok(address) = text.parse::<PciAddress>() {
                prop_assert_eq!(address.to_string(), text);
            }
        }
    }
}
