use std::fmt;
use std::str::FromStr;

use super::invalid;
use crate::error::Error;

/// Bytes of one parameter; x86's whole command line has 2048.
const PARAM_BYTES_MAX: usize = 1024;

/// One parameter of the guest kernel's command line: `--kernel-param NAME[=VALUE]`.
///
/// Blanks would make two of it, and quotes would swallow what follows.
///
/// ```
/// use vc_config::syntax::KernelParam;
///
/// assert!("loglevel=7".parse::<KernelParam>().is_ok());
/// assert!("quiet init=/bin/sh".parse::<KernelParam>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelParam(String);

impl KernelParam {
    /// The parameter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KernelParam {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Err(invalid("kernel parameter", "NAME[=VALUE]", text, reason));
        if text.is_empty() {
            return wrong("it is empty");
        }
        if text.len() > PARAM_BYTES_MAX {
            return wrong("it is longer than 1024 bytes");
        }
        if !text.chars().all(|c| c.is_ascii_graphic() && c != '"') {
            return wrong("only printable ASCII without blanks and double quotes is allowed");
        }
        if text == "--" {
            return wrong("what follows it would be taken for arguments of init");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KernelParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_single_parameter_is_refused() {
        for bad in ["", "a b", "a\n", "a=\"b", "--", "ä"] {
            assert!(bad.parse::<KernelParam>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(text in ".{0,30}") {
            if let Ok(param) = text.parse::<KernelParam>() {
                prop_assert_eq!(param.to_string(), text);
            }
        }
    }
}
