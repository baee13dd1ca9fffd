use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{GuestPath, invalid};
use crate::error::Error;

const FORM: &str = "SRC:DST[:ro|rw]";

/// A file or directory of the host that a container sees: `--volume SRC:DST[:ro|rw]`.
///
/// ```
/// use vc_config::syntax::VolumeSpec;
///
/// let volume: VolumeSpec = "./data:/srv/data:ro".parse()?;
/// assert!(volume.read_only);
/// assert_eq!(volume.destination.as_str(), "/srv/data");
/// # Ok::<(), vc_config::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// On the host; what is relative is so to the caller's directory.
    pub source: PathBuf,
    /// In the guest; never `/`.
    pub destination: GuestPath,
    /// Whether writing is refused, by the host.
    pub read_only: bool,
}

impl FromStr for VolumeSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason: String| invalid("volume", FORM, text, reason);
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, options) = match parts.as_slice() {
            [source, destination] => (*source, *destination, None),
            [source, destination, options] => (*source, *destination, Some(*options)),
            [_] | [] => return Err(wrong("it has no ':' between SRC and DST".to_owned())),
            _ => return Err(wrong("it has more than two ':'".to_owned())),
        };
        if source.is_empty() || source.contains('\0') {
            return Err(wrong("SRC is not a path".to_owned()));
        }
        let destination: GuestPath = destination.parse().map_err(|error| match error {
            Error::Syntax { reason, .. } => wrong(format!("DST: {reason}")),
            other => other,
        })?;
        if destination.is_root() {
            return Err(wrong(
                "DST is '/'; a root is given with --rootfs".to_owned(),
            ));
        }
        let read_only = options.map_or(Ok(false), read_only).map_err(wrong)?;
        Ok(Self {
            source: source.into(),
            destination,
            read_only,
        })
    }
}

fn read_only(options: &str) -> Result<bool, String> {
    match options {
        "ro" => Ok(true),
        "rw" => Ok(false),
        "" => Err("the option after the second ':' is missing".to_owned()),
        "z" | "Z" => Err(format!(
            "the option {options:?} is not supported: labels of the host are never changed"
        )),
        other => Err(format!("the option {other:?} is not known")),
    }
}

impl fmt::Display for VolumeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.read_only { "ro" } else { "rw" };
        write!(f, "{}:{}:{mode}", self.source.display(), self.destination)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        for (bad, named) in [
            ("/a", "':'"),
            (":/b", "SRC"),
            ("/a:", "DST"),
            ("/a:b", "DST"),
            ("/a:/b:", "missing"),
            ("/a:/b:ro,Z", "\"ro,Z\""),
            ("/a:/b:Z", "\"Z\""),
            ("/a:/b:wr", "\"wr\""),
            ("/a:/b:ro:x", "more than two"),
            ("/a:/", "--rootfs"),
            ("/a:/b/..", "'..'"),
        ] {
            let error = bad.parse::<VolumeSpec>().unwrap_err().to_string();
            assert!(error.contains(named), "{bad}: {error}");
        }
    }

    #[test]
    fn writing_is_the_default() {
        assert!(!"a:/b".parse::<VolumeSpec>().unwrap().read_only);
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(text in "[a/.:rowz,]{0,20}|.{0,30}") {
            if let Ok(volume) = text.parse::<VolumeSpec>() {
                prop_assert_eq!(volume.to_string().parse::<VolumeSpec>().unwrap(), volume);
            }
        }
    }
}
