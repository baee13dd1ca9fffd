//! The host's own system as a root: a list of what is shown, and nothing else.
//!
//! Every entry is one directory of one file system. What is mounted below it on the host is not
//! shown: an administrator who mounts something below `/usr` or `/etc` did not say that guests
//! may see it, and the list would mean something else on each host. A directory of the list that
//! is a mount itself is shown, since each is bound by itself.

use std::io;
use std::path::Path;

use super::plan::{Access, CachePolicy, ShareNode, SharePlan};
use super::rights::Rights;
use super::source::Source;
use crate::error::{Error, Result};

/// The directories of the host that are shown whole: programs, libraries and their configuration.
/// Where one is a link, as `/bin` is to `usr/bin`, the link is reproduced.
pub const DIRECTORIES: [&str; 9] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt",
];

/// What package managers and certificate tools keep outside of them.
const DATABASES: &[&str] = &[
    "var/lib/dpkg",
    "var/lib/apt",
    "var/lib/rpm",
    "var/lib/dnf",
    "var/lib/pacman",
    "var/lib/apk",
    "var/lib/zypp",
    "var/lib/alternatives",
    "var/lib/ca-certificates",
];

/// Empty directories that programs and mounts expect in a root, with their modes.
const EMPTY: &[(&str, u32)] = &[
    ("boot", 0o755),
    ("dev", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o755),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// Links that every system has.
const LINKS: &[(&str, &str)] = &[("var/run", "/run"), ("var/lock", "/run/lock")];

/// The plan of the system below `root`, which is `/` but in tests: what exists of the list,
/// read-only, read by nobody.
///
/// # Errors
///
/// [`Error::Source`] when something of the list exists and cannot be opened.
///
/// ```
/// let plan = vc_storage::host_system::plan("/".as_ref())?;
/// assert!(plan.entries.iter().any(|entry| entry.at == "usr"));
/// assert!(!plan.is_writable());
/// # Ok::<(), vc_storage::Error>(())
/// ```
pub fn plan(root: &Path) -> Result<SharePlan> {
    let mut plan = SharePlan::new("the share of the host's system", Rights::Nothing);
    // Programs and libraries: a host that replaces a file makes a new one, and the guest keeps
    // the one that it knows.
    plan.cache = CachePolicy::Always;
    for (at, mode) in EMPTY {
        plan.push(*at, ShareNode::Dir { mode: *mode });
    }
    for (at, target) in LINKS {
        plan.push(
            *at,
            ShareNode::Symlink {
                target: (*target).into(),
            },
        );
    }
    let directories = DIRECTORIES.map(|path| path.trim_start_matches('/'));
    for at in directories.iter().chain(DATABASES) {
        if let Some(node) = node(&root.join(at))? {
            plan.push(*at, node);
        }
    }
    Ok(plan)
}

/// What is at `path` on the host: a directory, a link, or nothing that is shown.
fn node(path: &Path) -> Result<Option<ShareNode>> {
    let failed = |source| Error::Source {
        path: path.into(),
        source,
    };
    let found = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    if found.is_symlink() {
        let target = std::fs::read_link(path).map_err(failed)?;
        // A link that is no text leads nowhere in a guest, whose names we could not write.
        return Ok(target.to_str().map(|target| ShareNode::Symlink {
            target: target.into(),
        }));
    }
    if !found.is_dir() {
        return Ok(None);
    }
    Ok(Some(ShareNode::Source {
        source: Source::open(path)?,
        access: Access::ReadOnly,
        recursive: false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(plan: &SharePlan) -> String {
        let line = |node: &ShareNode| match node {
            ShareNode::Source {
                access, recursive, ..
            } => format!("{access:?}, recursive: {recursive}"),
            ShareNode::Dir { mode } => format!("empty, {mode:o}"),
            ShareNode::Symlink { target } => format!("-> {target}"),
        };
        plan.entries
            .iter()
            .map(|entry| format!("{}: {}\n", entry.at, line(&entry.node)))
            .collect()
    }

    #[test]
    fn only_what_is_listed_and_exists_is_shown() {
        let root = tempfile::tempdir().unwrap();
        for dir in [
            "usr/bin",
            "etc",
            "home/user",
            "secret",
            "var/lib/dpkg",
            "var/lib/docker",
        ] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        std::os::unix::fs::symlink("usr/bin", root.path().join("bin")).unwrap();
        std::fs::write(root.path().join("opt"), "not a directory").unwrap();
        let plan = plan(root.path()).unwrap();
        assert_eq!(plan.rights, Rights::Nothing);
        insta::assert_snapshot!(lines(&plan));
    }
}
