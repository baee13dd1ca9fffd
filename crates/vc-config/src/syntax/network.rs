use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::invalid;
use crate::error::Error;

const FORM: &str = "none, user, nat or ns:PATH";

/// The network of a throw-away VM: `--net none|user|nat|ns:PATH`.
///
/// ```
/// use vc_config::syntax::NetworkSpec;
///
/// let network: NetworkSpec = "ns:/run/netns/web".parse()?;
/// assert_eq!(network, NetworkSpec::Namespace("/run/netns/web".into()));
/// assert!("host".parse::<NetworkSpec>().is_err());
/// # Ok::<(), vc_config::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkSpec {
    /// Loopback alone.
    None,
    /// Connections that a process of the host makes for it.
    User,
    /// An address behind a private bridge of the host.
    Nat,
    /// What is in the network namespace at this path; what is relative is so to the caller's
    /// directory.
    Namespace(PathBuf),
}

impl FromStr for NetworkSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Err(invalid("network", FORM, text, reason));
        match (text, text.strip_prefix("ns:")) {
            ("none", _) => Ok(Self::None),
            ("user", _) => Ok(Self::User),
            ("nat", _) => Ok(Self::Nat),
            ("host", _) => wrong(
                "a virtual machine has a network stack of its own and cannot share the host's",
            ),
            (_, Some(path)) if path.is_empty() || path.contains('\0') => {
                wrong("PATH is not a path")
            }
            (_, Some(path)) => Ok(Self::Namespace(path.into())),
            (_, None) => wrong("it is not known"),
        }
    }
}

impl fmt::Display for NetworkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::User => f.write_str("user"),
            Self::Nat => f.write_str("nat"),
            Self::Namespace(path) => write!(f, "ns:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        for (bad, named) in [
            ("", "not known"),
            ("bridge", "not known"),
            ("host", "cannot share the host's"),
            ("ns:", "PATH"),
            ("ns:a\0b", "PATH"),
        ] {
            let error = bad.parse::<NetworkSpec>().unwrap_err().to_string();
            assert!(error.contains(named), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(text in "(ns:)?[a-z/.]{0,12}|.{0,20}") {
            if let Ok(network) = text.parse::<NetworkSpec>() {
                prop_assert_eq!(network.to_string().parse::<NetworkSpec>().unwrap(), network);
            }
        }
    }
}
