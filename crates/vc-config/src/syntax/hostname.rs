use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::invalid;
use crate::error::Error;

/// Bytes of a label in DNS, and one less than a host name may have on Linux.
const HOSTNAME_BYTES_MAX: usize = 63;

/// The guest's host name, by RFC 1123: labels of letters, digits and inner hyphens, with dots
/// between them, 63 bytes in all.
///
/// ```
/// use vc_config::syntax::Hostname;
///
/// assert!("build-1.example".parse::<Hostname>().is_ok());
/// assert!("build_1".parse::<Hostname>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(String);

impl Hostname {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A host name made of any text, such as a sandbox's name: what is not allowed becomes a
    /// hyphen, and what is too long is cut.
    pub fn from_text(text: &str) -> Self {
        let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = text.chars().map(allowed).take(HOSTNAME_BYTES_MAX).collect();
        match name.trim_matches('-') {
            "" => Self("sandbox".to_owned()),
            name => Self(name.to_owned()),
        }
    }
}

impl FromStr for Hostname {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Err(invalid("host name", "LABEL[.LABEL…]", text, reason));
        if text.len() > HOSTNAME_BYTES_MAX {
            return wrong("it is longer than 63 bytes");
        }
        for label in text.split('.') {
            if label.is_empty() {
                return wrong("a label of it is empty");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return wrong("a label begins or ends with a hyphen");
            }
            if !label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            {
                return wrong("only letters, digits, hyphens and dots are allowed");
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Hostname {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_limits_are_inclusive() {
        assert!("a".repeat(63).parse::<Hostname>().is_ok());
        assert!("a".repeat(64).parse::<Hostname>().is_err());
        for bad in ["", ".", "a.", "a..b", "-a", "a-", "a.-b", "ä", "a b", "a\n"] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad:?}");
        }
        for good in ["1", "A-1", "a--b", "a.b.c"] {
            assert!(good.parse::<Hostname>().is_ok(), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_becomes_a_host_name(text in ".{0,100}") {
            let name = Hostname::from_text(&text);
            prop_assert!(name.as_str().parse::<Hostname>().is_ok(), "{}", name);
        }

        #[test]
        fn what_is_accepted_reads_back(text in "[a.-]{0,6}|.{0,70}") {
            if let Ok(name) = text.parse::<Hostname>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
