use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, invalid};

/// The lowest rate: a thousand bytes a second, one small packet.
const LOWEST: u64 = 8_000;

/// The highest rate, more than any link has.
const HIGHEST: u64 = 1_000_000_000_000;

/// Bits a second, counted in whole Ethernet frames.
///
/// ```
/// use vc_network::BitRate;
///
/// assert_eq!(BitRate::new(10_000_000)?.bits_per_second(), 10_000_000);
/// assert!(BitRate::new(0).is_err());
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct BitRate(u64);

impl BitRate {
    /// Checks a rate.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] below 8000 bits a second, and above 10¹².
    pub fn new(bits_per_second: u64) -> Result<Self> {
        if (LOWEST..=HIGHEST).contains(&bits_per_second) {
            return Ok(Self(bits_per_second));
        }
        let reason = "from 8000 to 1000000000000 bits a second are expected";
        Err(invalid("rate limit", &bits_per_second.to_string(), reason))
    }

    /// The rate.
    pub fn bits_per_second(self) -> u64 {
        self.0
    }

    pub(crate) fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bit/s", self.0)
    }
}

impl TryFrom<u64> for BitRate {
    type Error = Error;

    fn try_from(bits_per_second: u64) -> Result<Self> {
        Self::new(bits_per_second)
    }
}

impl From<BitRate> for u64 {
    fn from(rate: BitRate) -> Self {
        rate.0
    }
}

/// How much a machine may receive and send by one endpoint; `None` is as much as comes.
///
/// What is more waits for a short time, and is dropped then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimits {
    /// What the machine receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<BitRate>,
    /// What the machine sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<BitRate>,
}

impl RateLimits {
    /// Whether nothing is limited.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// A direction, as the machine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What it receives.
    Receive,
    /// What it sends.
    Send,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receive => "receive",
            Self::Send => "send",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_that_cannot_be_are_refused_in_a_state_too() {
        for wrong in [0, LOWEST - 1, HIGHEST + 1, u64::MAX] {
            assert!(BitRate::new(wrong).is_err());
            let text = format!("{{\"send\":{wrong}}}");
            assert!(serde_json::from_str::<RateLimits>(&text).is_err(), "{text}");
        }
        let limits: RateLimits = serde_json::from_str("{\"send\":8000}").unwrap();
        assert_eq!(limits.send.unwrap().bytes_per_second(), 1000);
        assert!(!limits.is_empty() && RateLimits::default().is_empty());
    }
}
