//! The address of an Ethernet interface.

use std::fmt;

use crate::error::{Error, Result};

/// Six bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mac([u8; 6]);

impl Mac {
    /// None unless there are six.
    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads `02:00:00:00:00:01`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid {
            field: "MAC",
            value: text.to_owned(),
            reason: "must be six bytes in base 16 with colons between",
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(invalid()),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_six_bytes_and_nothing_else() {
        let mac = Mac::parse("02:0A:00:ff:00:01").unwrap();
        assert_eq!(mac.to_string(), "02:0a:00:ff:00:01");
        assert_eq!(Mac::from_slice(mac.bytes()), Some(mac));
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "+2:00:00:00:00:01",
        ] {
            assert!(Mac::parse(text).is_err(), "{text}");
        }
        assert_eq!(Mac::from_slice(&[1; 7]), None);
    }
}
