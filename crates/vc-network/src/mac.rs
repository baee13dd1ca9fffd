use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, invalid};

/// The hardware address of one Ethernet interface: six bytes, neither zero nor a group's.
///
/// ```
/// use vc_network::MacAddress;
///
/// let mac: MacAddress = "02:00:00:00:00:01".parse()?;
/// assert_eq!(mac.octets(), [2, 0, 0, 0, 0, 1]);
/// assert!("01:00:5e:00:00:01".parse::<MacAddress>().is_err());
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// Checks an address.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for zero and for addresses of groups, which no interface has.
    pub fn new(octets: [u8; 6]) -> Result<Self> {
        let mac = Self(octets);
        if octets == [0; 6] {
            return Err(invalid("MAC address", &mac.to_string(), "it is zero"));
        }
        if octets[0] & 1 != 0 {
            let reason = "it is that of a group";
            return Err(invalid("MAC address", &mac.to_string(), reason));
        }
        Ok(mac)
    }

    /// The six bytes.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            invalid(
                "MAC address",
                text,
                "six pairs of hex digits with ':' are expected",
            )
        };
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(refuse)?;
            if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() {
            return Err(refuse());
        }
        Self::new(octets)
    }
}

impl TryFrom<String> for MacAddress {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wrong_forms_and_addresses_of_groups_are_refused() {
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02-00-00-00-00-01",
            "02:00:00:00:00:0g",
            "+2:00:00:00:00:01",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "33:33:00:00:00:01",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(octets: [u8; 6], text in "[0-9a-f:+-]{0,20}") {
            if let Ok(mac) = MacAddress::new(octets) {
                prop_assert_eq!(mac.to_string().parse::<MacAddress>().unwrap(), mac);
            }
            if let Ok(mac) = text.parse::<MacAddress>() {
                prop_assert_eq!(mac.to_string(), text);
            }
        }
    }
}
