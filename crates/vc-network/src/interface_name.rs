use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, invalid};
use crate::limits::NAME_BYTES_MAX;

/// The checked name of a network interface.
///
/// ```
/// use vc_network::InterfaceName;
///
/// assert_eq!("eth0".parse::<InterfaceName>()?.as_str(), "eth0");
/// assert!("sixteen-bytes-xx".parse::<InterfaceName>().is_err());
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Checks `name` by the kernel's rules, and by one of ours: no `%`, for which the kernel would
    /// take a number of its choice.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is empty, longer than 15 bytes, `.` or `..`, or holds white space,
    /// control characters, `/`, `:` or `%`.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let refuse = |reason| Err(invalid("interface name", &name, reason));
        if name.is_empty() {
            return refuse("it is empty");
        }
        if name.len() > NAME_BYTES_MAX {
            return refuse("it is longer than 15 bytes");
        }
        if name == "." || name == ".." {
            return refuse("it names a directory");
        }
        let forbidden =
            |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
        if name.contains(forbidden) {
            return refuse("white space, control characters, '/', ':' and '%' are not allowed");
        }
        Ok(Self(name))
    }

    /// One of this crate's own, which a test has checked.
    pub(crate) fn constant(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InterfaceName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_the_kernel_has_are_taken_and_others_refused() {
        for name in ["a", "eth0", "veth-12.3@x", "fifteen-bytes-x"] {
            assert_eq!(InterfaceName::new(name).unwrap().to_string(), name);
        }
        let long = "x".repeat(1 << 20);
        for name in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "eth0:1",
            "eth%d",
            "a\nb",
            "sixteen-bytes-xx",
            &long,
        ] {
            let error = InterfaceName::new(name).unwrap_err();
            assert!(error.to_string().len() < 300, "{error}");
        }
    }

    #[test]
    fn a_state_with_a_wrong_name_is_refused() {
        assert!(serde_json::from_str::<InterfaceName>("\"sixteen-bytes-xx\"").is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(name in ".{0,20}") {
            if let Ok(read) = name.parse::<InterfaceName>() {
                prop_assert!(name.len() <= NAME_BYTES_MAX);
                prop_assert_eq!(read.as_str(), name);
            }
        }
    }
}
