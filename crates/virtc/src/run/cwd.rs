//! Whether the current directory is shared with the machine.

use std::path::{Path, PathBuf};

use crate::cli::CwdMode;

/// What becomes of the current directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cwd {
    /// It is shared and is the working directory.
    Shared(PathBuf),
    /// The working directory is an empty one of that name; and why, where the user should know.
    Empty(PathBuf, Option<String>),
}

/// Decides about `cwd` when the invoking user's home is `home`.
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
