//! Whether the current directory is shared with the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::user::Accounts;
use crate::cli::CwdMode;

/// What becomes of the current directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cwd {
    /// It is shared and is the working directory.
    Shared(PathBuf),
    /// The working directory is an empty one of that name; and why, where the user should know.
    Empty(PathBuf, Option<String>),
}

/// The homes, by paths without links: of the host's `people`, what `HOME` is in the caller's
/// environment, and the home of who called sudo.
pub(crate) fn homes(people: &Accounts, env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let sudo = env.get("SUDO_USER").and_then(|name| people.home(name));
    let own = env.get("HOME").map(PathBuf::from);
    people
        .homes()
        .into_iter()
        .chain(own)
        .chain(sudo)
        .filter(|home| home.is_absolute())
        .map(|home| home.canonicalize().unwrap_or(home))
        .filter(|home| home != Path::new("/"))
        .collect()
}

/// Decides about `cwd`, a path without links, when `homes` are homes.
///
/// A home or the root holds what no command needs and much that none should see.
pub(crate) fn decide(mode: CwdMode, cwd: &Path, homes: &[PathBuf]) -> Cwd {
    let cwd = cwd.to_owned();
    match mode {
        CwdMode::Share => Cwd::Shared(cwd),
        CwdMode::Empty => Cwd::Empty(cwd, None),
        CwdMode::Auto if cwd == Path::new("/") => {
            let why = "the current directory is / and is not shared";
            Cwd::Empty(cwd, Some(why.to_owned()))
        }
        CwdMode::Auto if homes.contains(&cwd) => {
            let why = format!(
                "the current directory {} is a home directory and is not shared \
                 (--cwd share forces it)",
                cwd.display()
            );
            Cwd::Empty(cwd, Some(why))
        }
        CwdMode::Auto => Cwd::Shared(cwd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_one_wherever_links_lead_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().canonicalize().unwrap().join("data");
        std::fs::create_dir_all(data.join("ann")).unwrap();
        std::fs::create_dir_all(data.join("daemon")).unwrap();
        let home = dir.path().join("home");
        std::os::unix::fs::symlink(&data, &home).unwrap();
        let people = Accounts::from_passwd(&format!(
            "ann:x:1000:1000::{home}/ann:/bin/sh\nd:x:2:2::{home}/daemon:/bin/sh\n",
            home = home.display()
        ));
        let env = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        assert_eq!(homes(&people, &BTreeMap::new()), [data.join("ann")]);
        let with_sudo = homes(&people, &env("SUDO_USER", "d"));
        assert_eq!(with_sudo, [data.join("ann"), data.join("daemon")]);
        let with_home = homes(&Accounts::default(), &env("HOME", "/no/such/home"));
        assert_eq!(with_home, [Path::new("/no/such/home")]);
        assert!(homes(&Accounts::default(), &env("HOME", "/")).is_empty());
    }

    #[test]
    fn the_root_and_homes_are_not_shared_unless_forced() {
        let homes = [PathBuf::from("/root"), PathBuf::from("/home/a")];
        let decided = |mode, cwd: &str| decide(mode, Path::new(cwd), &homes);
        for cwd in ["/", "/root", "/home/a"] {
            assert!(
                matches!(decided(CwdMode::Auto, cwd), Cwd::Empty(_, Some(_))),
                "{cwd}"
            );
        }
        assert_eq!(
            decided(CwdMode::Auto, "/home/a/work"),
            Cwd::Shared("/home/a/work".into())
        );
        assert_eq!(
            decided(CwdMode::Share, "/root"),
            Cwd::Shared("/root".into())
        );
        assert_eq!(
            decided(CwdMode::Empty, "/srv"),
            Cwd::Empty("/srv".into(), None)
        );
    }
}
