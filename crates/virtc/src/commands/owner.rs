use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vc_config::syntax::{UserPart, UserSpec};

use crate::run::user::Accounts;

/// Whom states belong to, by the host's names.
#[derive(Debug)]
pub(super) struct Owners(Accounts);

impl Owners {
    /// Reads the host's names.
    pub(super) fn read() -> Self {
        Self(Accounts::read(Path::new("/")))
    }

    /// The name of whom the path belongs to, `#` and the number where it has none, and
    /// nothing where it is gone.
    pub(super) fn of(&self, directory: &Path) -> String {
        match fs::metadata(directory) {
            Ok(metadata) => self.name(metadata.uid()),
            Err(_) => String::new(),
        }
    }

    fn name(&self, uid: u32) -> String {
        let user = UserSpec {
            user: UserPart::Id(uid),
            group: None,
        };
        let number = format!("#{uid}");
        match self.0.find(&user) {
            Ok(user) if user.identity.name != number[1..] => user.identity.name,
            _ => number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_named_as_other_runtimes_name_it() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        let owners = Owners(Accounts::from_passwd(passwd));
        assert_eq!(owners.name(0), "root");
        assert_eq!(owners.name(1000), "ann");
        assert_eq!(owners.name(1001), "#1001");
        assert_eq!(owners.of(Path::new("/nonexistent")), "");
        assert_eq!(owners.of(Path::new("/")), "root");
    }
}
