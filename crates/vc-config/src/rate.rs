use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::setting::{Kind, Setting};

/// The units, each a thousand of the one before.
const UNITS: [(&str, u64); 4] = [
    ("Gbit", 1_000_000_000),
    ("Mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
];

/// Bits a second.
///
/// Text is a whole number, with or without a unit: `bit`, `kbit`, `Mbit`, `Gbit`, in any case.
///
/// ```
/// let rate: vc_config::Rate = "10 Mbit".parse().unwrap();
/// assert_eq!(rate.bits_per_second(), 10_000_000);
/// assert_eq!(rate.to_string(), "10 Mbit");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rate(u64);

impl Rate {
    /// A rate of so many bits a second.
    pub const fn new(bits_per_second: u64) -> Self {
        Self(bits_per_second)
    }

    /// How many bits a second it is.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, unit)| self.0.is_multiple_of(*unit));
        let (name, unit) = whole.unwrap_or(&("bit", 1));
        write!(f, "{} {name}", self.0 / unit)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("a rate is a number of bits a second or text such as \"10 Mbit\", not {text:?}")
        };
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &lower[digits.len()..] {
            "" => 1,
            word => UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(word))
                .map(|(_, unit)| *unit)
                .ok_or_else(wrong)?,
        };
        let number: u64 = digits.trim_end().parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Self).ok_or_else(wrong)
    }
}

impl Setting for Rate {
    const KIND: Kind = Kind::Rate;

    fn read(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Integer(bits) => u64::try_from(bits)
                .map(Self)
                .map_err(|_| "a rate cannot be negative".to_owned()),
            toml::Value::String(text) => text.parse(),
            other => Err(format!(
                "a rate is a number of bits a second or text such as \"10 Mbit\", not a {}",
                other.type_str()
            )),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(self.to_string().into())
    }

    fn number(&self) -> Option<u64> {
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_thousands_in_any_case() {
        for (text, bits) in [
            ("8000", 8_000),
            ("64kbit", 64_000),
            (" 10 MBIT ", 10_000_000),
            ("2 gbit", 2_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Rate(bits)), "{text}");
        }
        for text in [
            "",
            "Mbit",
            "10 MB",
            "-1",
            "1.5 Mbit",
            "10 é",
            "99999999999 Gbit",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_rate_that_reads_back_or_none(text in "[0-9]{0,20} ?[a-zA-Zé]{0,5}") {
            if let Ok(rate) = text.parse::<Rate>() {
                prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            }
        }
    }
}
