use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::invalid;
use crate::error::Error;

/// Bytes of a path, as Linux has it, the end's zero included.
const PATH_BYTES_MAX: usize = 4096;

/// An absolute path in the guest, without `.`, `..`, or doubled slashes.
///
/// ```
/// use vc_config::syntax::GuestPath;
///
/// assert_eq!("//srv/./data/".parse::<GuestPath>()?.as_str(), "/srv/data");
/// assert!("/srv/../etc".parse::<GuestPath>().is_err());
/// # Ok::<(), vc_config::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GuestPath(String);

impl GuestPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }
}

impl FromStr for GuestPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        normalise(text)
            .map(Self)
            .map_err(|reason| invalid("path in the guest", "/ABSOLUTE/PATH", text, reason))
    }
}

fn normalise(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') {
        return Err("it is not absolute");
    }
    if text.len() >= PATH_BYTES_MAX {
        return Err("it is longer than 4095 bytes");
    }
    if text.contains('\0') {
        return Err("it holds a zero byte");
    }
    let mut path = String::with_capacity(text.len());
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("it holds '..'"),
            name => {
                path.push('/');
                path.push_str(name);
            }
        }
    }
    if path.is_empty() {
        path.push('/');
    }
    Ok(path)
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<Path> for GuestPath {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl TryFrom<String> for GuestPath {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<GuestPath> for String {
    fn from(path: GuestPath) -> String {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_absolute_and_plain() {
        for (text, path) in [
            ("/", "/"),
            ("///", "/"),
            ("/a/", "/a"),
            ("/./a//.b", "/a/.b"),
        ] {
            assert_eq!(text.parse::<GuestPath>().unwrap().as_str(), path);
        }
        for bad in ["", "a", "./a", "/..", "/a/../b", "/a\0"] {
            assert!(bad.parse::<GuestPath>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(text in "[/.a\\x00é]{0,12}|.{0,20}") {
            if let Ok(path) = text.parse::<GuestPath>() {
                prop_assert!(path.as_str().starts_with('/'));
                prop_assert!(!Path::new(path.as_str())
                    .components()
                    .any(|part| part == std::path::Component::ParentDir));
                prop_assert_eq!(path.to_string().parse::<GuestPath>().unwrap(), path);
            }
        }
    }
}
