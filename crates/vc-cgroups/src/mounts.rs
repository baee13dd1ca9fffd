//! The reading of `/proc/thread-self/mountinfo` and `/proc/thread-self/cgroup`.

use std::path::PathBuf;

/// A mounted cgroup file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The part of the hierarchy that is mounted, `/` for all.
    pub(crate) root: String,
    pub(crate) mount_point: PathBuf,
    /// `cgroup` or `cgroup2`.
    pub(crate) kind: String,
    /// The options of the file system, controllers among them.
    pub(crate) options: Vec<String>,
}

/// The hierarchies that a process is in, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// `cpu`, `cpuacct`, …, or `name=systemd`; none for version 2.
    pub(crate) controllers: Vec<String>,
    /// From the root of the hierarchy, or of the cgroup namespace.
    pub(crate) path: String,
}

/// The cgroup mounts of a `mountinfo`; lines that are no such mounts are passed over.
///
/// Of several mounts on one mount point the last one is what a path leads to.
pub(crate) fn parse_mountinfo(text: &str) -> Vec<Mount> {
    let mut mounts: Vec<(PathBuf, Option<Mount>)> = Vec::new();
    for (mount_point, mount) in text.lines().filter_map(parse_line) {
        mounts.retain(|(other, _)| *other != mount_point);
        mounts.push((mount_point, mount));
    }
    mounts.into_iter().filter_map(|(_, mount)| mount).collect()
}

/// The mount point, and what is mounted there when it is a cgroup file system.
fn parse_line(line: &str) -> Option<(PathBuf, Option<Mount>)> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let root = unescape(before.next()?);
    let mount_point = PathBuf::from(unescape(before.next()?));
    let mut after = after.split(' ');
    let kind = after.next()?;
    if !matches!(kind, "cgroup" | "cgroup2") {
        return Some((mount_point, None));
    }
    let options = after.nth(1)?.split(',').map(str::to_owned).collect();
    let mount = Mount {
        root,
        mount_point: mount_point.clone(),
        kind: kind.to_owned(),
        options,
    };
    Some((mount_point, Some(mount)))
}

/// Undoes the kernel's `\040` for a space, and so on.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The lines `hierarchy-id:controllers:path` of a `/proc/<pid>/cgroup`.
pub(crate) fn parse_memberships(text: &str) -> Vec<Membership> {
    let parse = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?.split(',').filter(|name| !name.is_empty());
        Some(Membership {
            controllers: controllers.map(str::to_owned).collect(),
            path: fields.next()?.to_owned(),
        })
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn optional_fields_and_escapes_are_read() {
        let text = "25 30 0:22 / /proc rw,nosuid shared:12 - proc proc rw\n\
                    35 31 0:32 /docker/a\\040b /sys/fs/c\\134g rw shared:9 master:1 - cgroup cgroup rw,memory\n\
                    garbage\n";
        assert_eq!(
            parse_mountinfo(text),
            [Mount {
                root: "/docker/a b".into(),
                mount_point: "/sys/fs/c\\g".into(),
                kind: "cgroup".into(),
                options: vec!["rw".into(), "memory".into()],
            }]
        );
    }

    #[test]
    fn what_is_mounted_over_is_not_seen() {
        let text = "1 0 0:1 / /c rw - cgroup2 none rw\n2 1 0:2 / /c rw - tmpfs none rw\n";
        assert_eq!(parse_mountinfo(text), []);
    }

    #[test]
    fn a_cgroup_may_hold_colons() {
        let text = "4:cpu,cpuacct:/a:b\n1:name=systemd:/\n0::/x\n";
        let found = parse_memberships(text);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[0].path, "/a:b");
        assert_eq!(found[1].controllers, ["name=systemd"]);
        assert_eq!((found[2].controllers.len(), &*found[2].path), (0, "/x"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[0-9a-z/ \\\\:,\\-\n]{0,200}|\\PC{0,100}") {
            parse_mountinfo(&text);
            parse_memberships(&text);
        }
    }
}
