//! What the host has of cgroups.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dir::Dir;
use crate::error::{Error, Result, io};
use crate::mounts::{Membership, Mount, parse_memberships, parse_mountinfo};
use crate::path::CgroupPath;

/// The first or the second interface of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// Some controllers on a hierarchy of their own.
    V1,
    /// All controllers on one hierarchy.
    V2,
}

/// How the host uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Version 1 alone.
    V1,
    /// Version 2 alone; a hierarchy of version 1 without controllers (`name=systemd`) changes
    /// nothing.
    V2,
    /// The controllers are on version 1, and version 2 is mounted beside it.
    Hybrid,
}

/// One mounted hierarchy. Controllers that are mounted together (`cpu,cpuacct`) are one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    pub(crate) version: Version,
    pub(crate) controllers: Vec<String>,
    pub(crate) mount_point: PathBuf,
}

impl Hierarchy {
    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The controllers of version 1 on it, `name=systemd` included; none for version 2, which
    /// has what its `cgroup.controllers` says.
    pub fn controllers(&self) -> &[String] {
        &self.controllers
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Whether this controller of version 1 is on it.
    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// The hierarchies of the host in which cgroups are made: all mounted ones that have controllers,
/// `name=systemd`, and version 2.
///
/// ```no_run
/// use vc_cgroups::{Hierarchies, Layout};
///
/// let hierarchies = Hierarchies::detect()?;
/// if hierarchies.layout() == Layout::V2 {
///     assert_eq!(hierarchies.iter().count(), 1);
/// }
/// # Ok::<(), vc_cgroups::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Hierarchies(Vec<Found>);

#[derive(Clone, Debug)]
struct Found {
    hierarchy: Hierarchy,
    /// The own cgroup from the mount point on, without a slash at its ends; nothing when it is
    /// not below the mount.
    own: Option<String>,
}

impl Hierarchies {
    /// Reads what the calling thread sees mounted, and in which cgroups it is.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when `/proc` cannot be read, [`Error::NoHierarchy`] when nothing is mounted.
    pub fn detect() -> Result<Self> {
        let read = |path: &str| {
            let bytes = fs::read(path).map_err(io("read", path))?;
            Ok::<_, Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let mountinfo = read("/proc/thread-self/mountinfo")?;
        let memberships = read("/proc/thread-self/cgroup")?;
        // A mount may be hidden by one on a directory above it.
        Self::choose(&mountinfo, &memberships, |mount, version| {
            Dir::open_mount(&mount.mount_point, version).is_ok()
        })
    }

    /// Makes it of the texts of a `/proc/<pid>/mountinfo` and a `/proc/<pid>/cgroup`, without
    /// looking at the mounts.
    ///
    /// # Errors
    ///
    /// [`Error::NoHierarchy`] when the texts have none.
    pub fn parse(mountinfo: &str, memberships: &str) -> Result<Self> {
        Self::choose(mountinfo, memberships, |_, _| true)
    }

    fn choose(
        mountinfo: &str,
        memberships: &str,
        usable: impl Fn(&Mount, Version) -> bool,
    ) -> Result<Self> {
        let mounts = parse_mountinfo(mountinfo);
        let mut found = Vec::new();
        for membership in parse_memberships(memberships) {
            let Some(version) = version(&membership) else {
                continue;
            };
            let candidates = mounts
                .iter()
                .filter(|mount| shows(mount, &membership) && usable(mount, version));
            // The whole hierarchy, where a part of it is mounted too.
            if let Some(mount) = candidates.min_by_key(|mount| mount.root != "/") {
                found.push(Found {
                    own: own(&membership.path, &mount.root),
                    hierarchy: Hierarchy {
                        version,
                        controllers: membership.controllers,
                        mount_point: mount.mount_point.clone(),
                    },
                });
            }
        }
        if found.is_empty() {
            return Err(Error::NoHierarchy);
        }
        Ok(Self(found))
    }

    /// How the host uses cgroups.
    pub fn layout(&self) -> Layout {
        let has_v2 = self.iter().any(|one| one.version == Version::V2);
        let is_controller = |name: &String| !name.starts_with("name=");
        let has_v1 = self
            .iter()
            .any(|one| one.controllers.iter().any(is_controller));
        match (has_v1, has_v2) {
            (true, true) => Layout::Hybrid,
            (false, true) => Layout::V2,
            (_, false) => Layout::V1,
        }
    }

    /// The hierarchies, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = &Hierarchy> {
        self.0.iter().map(|found| &found.hierarchy)
    }

    /// The caller's cgroup in each hierarchy in which it can be seen, from the mount point on.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&Hierarchy, &str)> {
        self.0
            .iter()
            .filter_map(|found| Some((&found.hierarchy, found.own.as_deref()?)))
    }

    /// Where `path` is in each hierarchy, from its mount point on.
    pub(crate) fn resolve(&self, path: &CgroupPath) -> Result<Vec<(Hierarchy, CgroupPath)>> {
        let alone = self.layout() == Layout::V2;
        let resolve = |found: &Found| {
            let hierarchy = found.hierarchy.clone();
            if path.is_absolute() {
                return Ok((hierarchy, path.clone()));
            }
            let own = found.own.as_deref().ok_or_else(|| Error::OwnCgroupHidden {
                mount_point: hierarchy.mount_point.clone(),
                path: path.to_string(),
            })?;
            // What has processes in it can have no cgroups with controllers below it.
            let base = match (alone, own.rsplit_once('/')) {
                (false, _) => own,
                (true, Some((parent, _))) => parent,
                (true, None) => "",
            };
            let separator = if base.is_empty() { "" } else { "/" };
            let path = CgroupPath::new(format!("/{base}{separator}{path}"))?;
            Ok((hierarchy, path))
        };
        self.0.iter().map(resolve).collect()
    }
}

/// The version of a hierarchy, unless cgroups are not to be made in it: some program's own one
/// without controllers.
fn version(membership: &Membership) -> Option<Version> {
    match membership.controllers.first() {
        None => Some(Version::V2),
        Some(name) if name.starts_with("name=") && name != "name=systemd" => None,
        Some(_) => Some(Version::V1),
    }
}

/// Whether it is this hierarchy that is mounted.
fn shows(mount: &Mount, membership: &Membership) -> bool {
    if membership.controllers.is_empty() {
        return mount.kind == "cgroup2";
    }
    let mut controllers = membership.controllers.iter();
    mount.kind == "cgroup" && controllers.all(|name| mount.options.contains(name))
}

/// The own cgroup from the mount point on.
fn own(path: &str, root: &str) -> Option<String> {
    let below = match root {
        "/" => path,
        root => path
            .strip_prefix(root)
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))?,
    };
    let below = below.trim_matches('/');
    // The kernel shows what is outside of the cgroup namespace as `/..`.
    let outside = below.split('/').any(|component| component == "..");
    (!outside).then(|| below.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        34 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        35 31 0:39 / /sys/fs/cgroup/other rw - cgroup cgroup rw,name=other\n";
    const V1_OWN: &str = "5:name=other:/\n4:cpu,cpuacct:/\n3:memory:/own/one\n2:pids:/\n\
                          1:name=systemd:/user.slice\n";
    const UNIFIED: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const V2: &str = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";

    fn path(text: &str) -> CgroupPath {
        text.parse().unwrap()
    }

    fn places(hierarchies: &Hierarchies, text: &str) -> Vec<String> {
        let resolved = hierarchies.resolve(&path(text)).unwrap();
        let place = |(one, path): &(Hierarchy, CgroupPath)| {
            format!("{}{path}", one.mount_point().display())
        };
        resolved.iter().map(place).collect()
    }

    #[test]
    fn controllers_that_are_mounted_together_are_one() {
        let found = Hierarchies::parse(V1, V1_OWN).unwrap();
        assert_eq!(found.layout(), Layout::V1);
        let controllers: Vec<_> = found
            .iter()
            .map(|one| one.controllers().join(","))
            .collect();
        // `pids` is not mounted, `other` is somebody's own.
        assert_eq!(controllers, ["cpu,cpuacct", "memory", "name=systemd"]);
    }

    #[test]
    fn version_2_beside_version_1_is_hybrid() {
        let found = Hierarchies::parse(&format!("{V1}{UNIFIED}"), &format!("{V1_OWN}0::/x\n"));
        let found = found.unwrap();
        assert_eq!(found.layout(), Layout::Hybrid);
        assert_eq!(found.iter().last().unwrap().version(), Version::V2);
        // The own cgroup, not its parent: there are no controllers on version 2.
        let place = places(&found, "a").pop().unwrap();
        assert_eq!(place, "/sys/fs/cgroup/unified/x/a");
    }

    #[test]
    fn version_2_alone_is_version_2_with_systemds_hierarchy_too() {
        let own = "0::/user.slice/session-1.scope\n";
        let found = Hierarchies::parse(V2, own).unwrap();
        assert_eq!(found.layout(), Layout::V2);
        assert_eq!(places(&found, "a/b"), ["/sys/fs/cgroup/user.slice/a/b"]);
        assert_eq!(places(&found, "/a/b"), ["/sys/fs/cgroup/a/b"]);

        let systemd = V1.lines().nth(3).unwrap();
        let both = Hierarchies::parse(&format!("{V2}{systemd}\n"), "1:name=systemd:/\n0::/\n");
        let both = both.unwrap();
        assert_eq!(both.layout(), Layout::V2);
        assert_eq!(
            places(&both, "a"),
            ["/sys/fs/cgroup/systemd/a", "/sys/fs/cgroup/a"]
        );
    }

    #[test]
    fn relative_paths_begin_at_the_own_cgroup_of_each_hierarchy() {
        let found = Hierarchies::parse(V1, V1_OWN).unwrap();
        assert_eq!(
            places(&found, "a/b"),
            [
                "/sys/fs/cgroup/cpu,cpuacct/a/b",
                "/sys/fs/cgroup/memory/own/one/a/b",
                "/sys/fs/cgroup/systemd/user.slice/a/b",
            ]
        );
        assert_eq!(places(&found, "/a")[1], "/sys/fs/cgroup/memory/a");
    }

    #[test]
    fn a_part_of_a_hierarchy_is_used_from_its_mount_on() {
        let mount = "33 31 0:30 /docker/x /cg/memory rw - cgroup cgroup rw,memory\n";
        let of = |own: &str| Hierarchies::parse(mount, own).unwrap();
        assert_eq!(
            places(&of("3:memory:/docker/x/y\n"), "a"),
            ["/cg/memory/y/a"]
        );
        assert_eq!(places(&of("3:memory:/docker/x\n"), "a"), ["/cg/memory/a"]);
        for hidden in ["3:memory:/docker/xy\n", "3:memory:/..\n", "3:memory:/\n"] {
            let found = of(hidden);
            let error = found.resolve(&path("a")).unwrap_err();
            assert!(matches!(error, Error::OwnCgroupHidden { .. }), "{hidden}");
            assert!(found.resolve(&path("/a")).is_ok());
        }
        // The whole one is preferred.
        let whole = "40 31 0:30 / /whole rw - cgroup cgroup rw,memory\n";
        let found = Hierarchies::parse(&format!("{mount}{whole}"), "3:memory:/\n").unwrap();
        assert_eq!(places(&found, "/a"), ["/whole/a"]);
    }

    #[test]
    fn a_host_without_cgroups_is_an_error() {
        let tmpfs = V1.lines().next().unwrap();
        for (mountinfo, own) in [("", "0::/\n"), (tmpfs, "0::/\n"), (V2, ""), (V1, "0::/\n")] {
            let error = Hierarchies::parse(mountinfo, own).unwrap_err();
            assert!(matches!(error, Error::NoHierarchy));
        }
    }
}
