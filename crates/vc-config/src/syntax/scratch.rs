use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vc_types::ByteSize;

use super::invalid;
use crate::error::Error;

/// The writable layer of a throw-away VM: `--scratch SIZE|tmpfs[:SIZE]`.
///
/// ```
/// use vc_config::syntax::ScratchSpec;
/// use vc_types::ByteSize;
///
/// assert_eq!("20g".parse::<ScratchSpec>()?, ScratchSpec::Disk(ByteSize::from_mib(20 << 10)));
/// assert_eq!("tmpfs".parse::<ScratchSpec>()?, ScratchSpec::Tmpfs(None));
/// # Ok::<(), vc_config::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScratchSpec {
    /// A sparse disk of this apparent size.
    Disk(ByteSize),
    /// In the guest's memory, at most this much.
    Tmpfs(Option<ByteSize>),
}

impl FromStr for ScratchSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let size = |size: &str| match size.parse::<ByteSize>() {
            Ok(size) if size.bytes() == 0 => Err("its size is 0".to_owned()),
            Ok(size) => Ok(size),
            Err(error) => Err(error.to_string()),
        };
        let read = match (text, text.strip_prefix("tmpfs:")) {
            ("tmpfs", _) => Ok(Self::Tmpfs(None)),
            (_, Some(rest)) => size(rest).map(|size| Self::Tmpfs(Some(size))),
            (_, None) => size(text).map(Self::Disk),
        };
        read.map_err(|reason| invalid("scratch", "SIZE or tmpfs[:SIZE]", text, reason))
    }
}

impl fmt::Display for ScratchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(size) => write!(f, "{}", size.bytes()),
            Self::Tmpfs(None) => f.write_str("tmpfs"),
            Self::Tmpfs(Some(size)) => write!(f, "tmpfs:{}", size.bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_scratch_is_refused() {
        for bad in ["", "0", "tmpfs:", "tmpfs:0", "disk", "tmpfs:x", "-1g"] {
            assert!(bad.parse::<ScratchSpec>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(text in "(tmpfs:)?[0-9]{0,4}[kmgt]?|.{0,20}") {
            if let Ok(scratch) = text.parse::<ScratchSpec>() {
                prop_assert_eq!(scratch.to_string().parse::<ScratchSpec>().unwrap(), scratch);
            }
        }
    }
}
