use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vc_types::ByteSize;

use super::{GuestPath, invalid};
use crate::error::Error;

const FORM: &str = "DST[:SIZE], or DST:OPTION[,OPTION…] of size=SIZE, mode=OCTAL, ro, rw, noexec, \
                    exec, nosuid, nodev";

/// A directory in the guest's memory: `--tmpfs DST[:SIZE]`.
///
/// It never honours set-user-id bits and device nodes, so that `nosuid` and `nodev` say nothing
/// new.
///
/// ```
/// use vc_config::syntax::TmpfsSpec;
///
/// let tmpfs: TmpfsSpec = "/tmp:size=64m,mode=1777".parse()?;
/// assert_eq!(tmpfs.size.map(|size| size.mib()), Some(64));
/// # Ok::<(), vc_config::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsSpec {
    /// In the guest; never `/`.
    pub destination: GuestPath,
    /// The most that it takes; half of the guest's memory when it is not given.
    pub size: Option<ByteSize>,
    /// The directory's permissions; 1777 when they are not given.
    pub mode: Option<u32>,
    /// Whether writing is refused.
    pub read_only: bool,
    /// Whether programs in it cannot be run.
    pub no_exec: bool,
}

impl FromStr for TmpfsSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason: String| invalid("tmpfs", FORM, text, reason);
        let (destination, options) = match text.split_once(':') {
            Some((destination, options)) => (destination, Some(options)),
            None => (text, None),
        };
        let destination: GuestPath = destination.parse().map_err(|error| match error {
            Error::Syntax { reason, .. } => wrong(format!("DST: {reason}")),
            other => other,
        })?;
        if destination.is_root() {
            return Err(wrong("DST is '/'".to_owned()));
        }
        let mut spec = Self {
            destination,
            size: None,
            mode: None,
            read_only: false,
            no_exec: false,
        };
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            spec.apply(option).map_err(wrong)?;
        }
        Ok(spec)
    }
}

impl TmpfsSpec {
    fn apply(&mut self, option: &str) -> Result<(), String> {
        match option.split_once('=') {
            Some(("size", size)) => self.size = Some(read_size(size)?),
            Some(("mode", mode)) => self.mode = Some(read_mode(mode)?),
            Some((name, _)) => return Err(format!("the option {name:?} is not known")),
            None => match option {
                "ro" => self.read_only = true,
                "rw" => self.read_only = false,
                "noexec" => self.no_exec = true,
                "exec" => self.no_exec = false,
                "nosuid" | "nodev" => {}
                size if size.starts_with(|c: char| c.is_ascii_digit()) => {
                    self.size = Some(read_size(size)?);
                }
                other => return Err(format!("the option {other:?} is not known")),
            },
        }
        Ok(())
    }
}

fn read_size(text: &str) -> Result<ByteSize, String> {
    match text.parse::<ByteSize>() {
        // To the kernel, no size at all.
        Ok(size) if size.bytes() == 0 => Err("its size is 0".to_owned()),
        Ok(size) => Ok(size),
        Err(error) => Err(error.to_string()),
    }
}

fn read_mode(text: &str) -> Result<u32, String> {
    let octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o7777 => Ok(mode),
        _ => Err(format!(
            "the mode {text:?} is not an octal number up to 7777"
        )),
    }
}

impl fmt::Display for TmpfsSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut options = Vec::new();
        if let Some(size) = self.size {
            options.push(format!("size={}", size.bytes()));
        }
        if let Some(mode) = self.mode {
            options.push(format!("mode={mode:o}"));
        }
        if self.read_only {
            options.push("ro".to_owned());
        }
        if self.no_exec {
            options.push("noexec".to_owned());
        }
        if options.is_empty() {
            return write!(f, "{}", self.destination);
        }
        write!(f, "{}:{}", self.destination, options.join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn podmans_own_example_is_accepted() {
        let tmpfs: TmpfsSpec = "/tmp:rw,size=787448k,mode=1777".parse().unwrap();
        assert_eq!(tmpfs.size, Some(ByteSize::from_bytes(787_448 << 10)));
        assert_eq!(tmpfs.mode, Some(0o1777));
        assert!(!tmpfs.read_only);
    }

    #[test]
    fn a_bare_size_is_a_size() {
        let tmpfs: TmpfsSpec = "/t:64m".parse().unwrap();
        assert_eq!(tmpfs.size, Some(ByteSize::from_mib(64)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (bad, named) in [
            ("t", "absolute"),
            ("/", "'/'"),
            ("/t:", "\"\""),
            ("/t:size=0", "0"),
            ("/t:size=x", "\"x\""),
            ("/t:mode=8", "\"8\""),
            ("/t:mode=", "octal"),
            ("/t:uid=3", "\"uid\""),
            ("/t:nosiud", "\"nosiud\""),
        ] {
            let error = bad.parse::<TmpfsSpec>().unwrap_err().to_string();
            assert!(error.contains(named), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(
            text in "/[a/.]{1,4}(:((size=)?[0-9]{1,3}[kmg]?|mode=[0-9]{1,5}|ro|rw|noexec)(,ro)?)?|.{0,30}"
        ) {
            if let Ok(tmpfs) = text.parse::<TmpfsSpec>() {
                prop_assert_eq!(tmpfs.to_string().parse::<TmpfsSpec>().unwrap(), tmpfs);
            }
        }
    }
}
