use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::invalid;
use crate::error::Error;

const FORM: &str = "UID[:GID] or NAME[:GROUP]";

/// Bytes of a user's or group's name, as glibc has it (LOGIN_NAME_MAX).
const NAME_BYTES_MAX: usize = 256;

/// The user that a command runs as: `--user UID[:GID]|NAME[:GROUP]`.
///
/// Names are looked up in the container's own `/etc/passwd` and `/etc/group`.
///
/// ```
/// use vc_config::syntax::{UserPart, UserSpec};
///
/// let user: UserSpec = "1000:users".parse()?;
/// assert_eq!(user.user, UserPart::Id(1000));
/// assert_eq!(user.group, Some(UserPart::Name("users".into())));
/// # Ok::<(), vc_config::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    /// The user.
    pub user: UserPart,
    /// The group; the user's own when it is not given.
    pub group: Option<UserPart>,
}

/// A user or a group, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserPart {
    /// By number.
    Id(u32),
    /// By name.
    Name(String),
}

impl FromStr for UserSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason| invalid("user", FORM, text, reason);
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        Ok(Self {
            user: part(user).map_err(wrong)?,
            group: group.map(part).transpose().map_err(wrong)?,
        })
    }
}

fn part(text: &str) -> Result<UserPart, &'static str> {
    if text.is_empty() {
        return Err("a part of it is empty");
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse() {
            // The largest number means "no change" to the kernel.
            Ok(id) if id < u32::MAX => Ok(UserPart::Id(id)),
            _ => Err("a number is too large"),
        };
    }
    if text.len() > NAME_BYTES_MAX {
        return Err("a name is longer than 256 bytes");
    }
    if text.starts_with('-') {
        return Err("a name begins with '-'");
    }
    let refused = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | ',');
    if text.chars().any(refused) {
        return Err("a name holds a character that no name has");
    }
    Ok(UserPart::Name(text.to_owned()))
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => write!(f, "{}", self.user),
        }
    }
}

impl fmt::Display for UserPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_and_names_may_be_mixed() {
        for good in [
            "0",
            "0:0",
            "www-data",
            "www-data:33",
            "1000:users",
            "svc$",
            "4294967294",
        ] {
            assert_eq!(good.parse::<UserSpec>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn what_is_no_user_is_refused() {
        for bad in [
            "",
            ":",
            "a:",
            ":b",
            "a:b:c",
            "4294967295",
            "99999999999",
            "-1",
            "a b",
            "a/b",
        ] {
            assert!(bad.parse::<UserSpec>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(text in "[0-9a:]{0,12}|.{0,20}") {
            if let Ok(user) = text.parse::<UserSpec>() {
                prop_assert_eq!(user.to_string().parse::<UserSpec>().unwrap(), user);
            }
        }
    }
}
