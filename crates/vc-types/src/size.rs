use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A number of bytes, written as users of podman write it: `512m`, `2G`, `1048576`.
///
/// Units are binary: `k`, `m`, `g`, `t`, in either case, optionally followed by `b` or `ib`.
///
/// ```
/// use vc_types::ByteSize;
///
/// let size: ByteSize = "2g".parse()?;
/// assert_eq!(size.bytes(), 2 << 30);
/// assert_eq!(size.to_string(), "2 GiB");
/// # Ok::<(), vc_types::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "SizeAsWritten", into = "u64")]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many MiB.
    pub const fn from_mib(mib: u32) -> Self {
        Self((mib as u64) << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of whole MiB.
    pub const fn mib(self) -> u64 {
        self.0 >> 20
    }
}

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        let invalid = |reason| Error::InvalidSize {
            value: value.to_owned(),
            reason,
        };
        let text = value.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number
            .parse()
            .map_err(|_| invalid("it must be a whole number with an optional unit (k, m, g, t)"))?;
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(invalid("its unit must be one of k, m, g, t")),
        };
        number
            .checked_mul(1 << shift)
            .map(Self)
            .ok_or_else(|| invalid("it is larger than 64 bits hold"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

impl From<ByteSize> for u64 {
    fn from(size: ByteSize) -> u64 {
        size.0
    }
}

/// A size in a file: a number of bytes, or text with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum SizeAsWritten {
    Bytes(u64),
    Text(String),
}

impl TryFrom<SizeAsWritten> for ByteSize {
    type Error = Error;

    fn try_from(size: SizeAsWritten) -> Result<Self> {
        match size {
            SizeAsWritten::Bytes(bytes) => Ok(Self(bytes)),
            SizeAsWritten::Text(text) => text.parse(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_binary_and_either_case() {
        for (text, bytes) in [
            ("1", 1),
            ("1b", 1),
            ("1K", 1024),
            ("3mib", 3 << 20),
            ("1T", 1 << 40),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for bad in [
            "",
            "m",
            "-1",
            "1.5g",
            "1x",
            "99999999999999999999",
            "18446744073709551615k",
        ] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_display_reads_back(text in ".{0,30}", bytes: u64) {
            let _ = text.parse::<ByteSize>();
            let shown = ByteSize::from_bytes(bytes).to_string().replace(" bytes", "");
            prop_assert_eq!(shown.parse::<ByteSize>().unwrap().bytes(), bytes);
        }
    }
}
