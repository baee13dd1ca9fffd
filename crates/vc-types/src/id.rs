use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limits::ID_BYTES_MAX;

/// The rule for every id: a file name that needs no quoting, as runc has it, and no longer than
/// [`ID_BYTES_MAX`] bytes.
fn check(kind: &'static str, value: &str) -> Result<()> {
    let invalid = |reason| {
        Err(Error::InvalidId {
            kind,
            // An absurd length is not repeated in the message.
            value: value.chars().take(ID_BYTES_MAX).collect(),
            reason,
        })
    };
    if value.is_empty() {
        return invalid("it is empty");
    }
    if value.len() > ID_BYTES_MAX {
        return invalid("it is longer than 128 bytes");
    }
    if value == "." || value == ".." {
        return invalid("it names a directory");
    }
    if value.starts_with('-') {
        return invalid("it begins with '-' and would be taken for an option");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if !value.chars().all(allowed) {
        return invalid("only letters, digits and '_', '+', '-', '.' are allowed");
    }
    Ok(())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `value` and makes it an id.
            ///
            /// # Errors
            ///
            /// [`Error::InvalidId`] when `value` is empty, longer than 128 bytes, `.` or `..`,
            /// begins with `-`, or holds anything but ASCII letters, digits, `_`, `+`, `-`, `.`.
            pub fn new(value: impl Into<String>) -> Result<Self> {
                let value = value.into();
                check($kind, &value)?;
                Ok(Self(value))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<Path> for $name {
            fn as_ref(&self) -> &Path {
                Path::new(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(value: &str) -> Result<Self> {
                Self::new(value)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(value: String) -> Result<Self> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

id! {
    /// The name of a sandbox: one lightweight virtual machine.
    ///
    /// ```
    /// use vc_types::SandboxId;
    ///
    /// let id = SandboxId::new("web-1")?;
    /// assert_eq!(id.as_str(), "web-1");
    /// assert!(SandboxId::new("../etc").is_err());
    /// # Ok::<(), vc_types::Error>(())
    /// ```
    SandboxId, "sandbox"
}

id! {
    /// The name of a container, unique in its sandbox.
    ContainerId, "container"
}

id! {
    /// The name of a process that was added to a container.
    ExecId, "exec"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_length_limit_is_inclusive() {
        assert!(SandboxId::new("a".repeat(ID_BYTES_MAX)).is_ok());
        assert!(SandboxId::new("a".repeat(ID_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn names_of_directories_and_options_are_refused() {
        for bad in ["", ".", "..", "-f", "a/b", "a b", "ä", "a\n", "a\0"] {
            assert!(ContainerId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "...", "_x", "A+b-c.d_0"] {
            assert!(ContainerId::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_stored_id_is_checked_when_it_is_read() {
        assert!(serde_json::from_str::<SandboxId>("\"../x\"").is_err());
        assert!(serde_json::from_str::<SandboxId>("\"x\"").is_ok());
    }

    proptest! {
        #[test]
        fn an_id_is_always_one_component_of_a_path(value in ".{0,200}") {
            if let Ok(id) = SandboxId::new(value) {
                let joined = Path::new("/root").join(&id);
                prop_assert_eq!(joined.parent(), Some(Path::new("/root")));
                prop_assert_eq!(joined.file_name().and_then(|n| n.to_str()), Some(id.as_str()));
            }
        }
    }
}
