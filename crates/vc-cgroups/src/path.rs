//! Which paths may name a cgroup.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, invalid};
use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX};

/// The cgroup below which all are that nobody gave a path for. Its name makes it ours: whoever
/// leaves it last removes it, whoever made it.
pub const DEFAULT_PARENT: &str = "virtcontainers";

/// What the names of scopes begin with for which nobody gave one.
pub const SCOPE_PREFIX: &str = "virtc";

/// Where systemd puts a scope without a slice.
const DEFAULT_SLICE: &str = "system.slice";

/// Which form `linux.cgroupsPath` has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupDriver {
    /// A path.
    #[default]
    Cgroupfs,
    /// `slice:prefix:name` (`--systemd-cgroup`).
    Systemd,
}

/// A path of a cgroup that was checked: it leads nowhere but down, and is not the root.
///
/// One that begins with `/` is relative to the roots of the hierarchies, any other to the cgroup
/// of the calling process. On a host with version 2 alone it is relative to the parent of that
/// cgroup, as with runc: a cgroup with processes in it can have none below it with controllers.
///
/// ```
/// use vc_cgroups::CgroupPath;
///
/// let path = CgroupPath::new("/pods/web-1")?;
/// assert!(path.is_absolute());
/// assert_eq!(path.join("vmm")?.to_string(), "/pods/web-1/vmm");
/// assert!(CgroupPath::new("/pods/../../etc").is_err());
/// # Ok::<(), vc_cgroups::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CgroupPath(String);

impl CgroupPath {
    /// Checks `path`, which is taken as it is.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`] when it is empty, the root, longer than 2048 bytes, or has a
    /// component that is empty, `.` or `..`, longer than 255 bytes, or holds a control character.
    pub fn new(path: impl Into<String>) -> Result<Self> {
        let path = path.into();
        if path.len() > PATH_BYTES_MAX {
            return Err(invalid(&path, "it is longer than 2048 bytes"));
        }
        let below = path.strip_prefix('/').unwrap_or(&path);
        if below.is_empty() {
            return Err(invalid(&path, "it names no cgroup below the root"));
        }
        for component in below.split('/') {
            check_component(component).map_err(|reason| invalid(&path, reason))?;
        }
        Ok(Self(path))
    }

    /// The path of a container's cgroup: `linux.cgroupsPath` in the driver's form, or the default
    /// where that is missing or empty. The default is `/virtcontainers/<name>`, with systemd's form
    /// `/system.slice/virtc-<name>.scope`: a name that no other container of the host has.
    ///
    /// ```
    /// use vc_cgroups::{CgroupDriver, CgroupPath};
    ///
    /// let path = CgroupPath::of_container(None, CgroupDriver::Cgroupfs, "web")?;
    /// assert_eq!(path.as_str(), "/virtcontainers/web");
    ///
    /// let given = Some("user-1000.slice:docker:web");
    /// let path = CgroupPath::of_container(given, CgroupDriver::Systemd, "web")?;
    /// assert_eq!(path.as_str(), "/user.slice/user-1000.slice/docker-web.scope");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`CgroupPath::new`] and [`CgroupPath::from_systemd`].
    pub fn of_container(
        cgroups_path: Option<&str>,
        driver: CgroupDriver,
        name: &str,
    ) -> Result<Self> {
        match (cgroups_path.unwrap_or_default(), driver) {
            ("", CgroupDriver::Cgroupfs) => Self::below_default_parent(name),
            ("", CgroupDriver::Systemd) => Self::from_systemd(&format!(":{SCOPE_PREFIX}:{name}")),
            (path, CgroupDriver::Cgroupfs) => Self::new(path),
            (path, CgroupDriver::Systemd) => Self::from_systemd(path),
        }
    }

    /// `/virtcontainers/<name>`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`] when the name cannot be a directory's.
    pub fn below_default_parent(name: &str) -> Result<Self> {
        Self(format!("/{DEFAULT_PARENT}")).join(name)
    }

    /// Expands systemd's form `slice:prefix:name` as runc does: the slice `a-b.slice` is
    /// `/a.slice/a-b.slice`, and the scope in it `prefix-name.scope`, or `name` alone when that
    /// ends with `.slice`. An empty slice is `system.slice`; `-` and `-.slice` are the root.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`] when it has not three parts, when the slice does not end with
    /// `.slice` or has an empty part between dashes, when the name is empty, and for what
    /// [`CgroupPath::new`] refuses. A `/` is allowed nowhere.
    pub fn from_systemd(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(invalid(text, "it is not of the form \"slice:prefix:name\""));
        };
        if text.contains('/') {
            return Err(invalid(text, "\"slice:prefix:name\" may not hold a '/'"));
        }
        if name.is_empty() {
            return Err(invalid(text, "the name after the last ':' is empty"));
        }
        let slice = expand_slice(slice).map_err(|reason| invalid(text, reason))?;
        let unit = if name.ends_with(".slice") {
            name.to_owned()
        } else {
            format!("{prefix}-{name}.scope")
        };
        Self::new(format!("{slice}/{unit}"))
    }

    /// The cgroup `name` below this one.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`] when `name` is not one component.
    pub fn join(&self, name: &str) -> Result<Self> {
        check_component(name).map_err(|reason| invalid(name, reason))?;
        Self::new(format!("{}/{name}", self.0))
    }

    /// The cgroup above it; nothing where that is the root, or the cgroup of the calling process.
    ///
    /// ```
    /// use vc_cgroups::CgroupPath;
    ///
    /// let path = CgroupPath::new("/pods/web-1")?;
    /// assert_eq!(path.parent(), Some(CgroupPath::new("/pods")?));
    /// assert_eq!(CgroupPath::new("/pods")?.parent(), None);
    /// # Ok::<(), vc_cgroups::Error>(())
    /// ```
    pub fn parent(&self) -> Option<Self> {
        let (above, _) = self.0.rsplit_once('/')?;
        (!above.is_empty()).then(|| Self(above.to_owned()))
    }

    /// Whether it begins at the roots of the hierarchies.
    pub fn is_absolute(&self) -> bool {
        self.0.starts_with('/')
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components, from the top; never none.
    pub(crate) fn components(&self) -> Vec<&str> {
        self.0.trim_start_matches('/').split('/').collect()
    }
}

/// Why a text cannot be one component of a path.
fn check_component(component: &str) -> Result<(), &'static str> {
    match component {
        "" => return Err("it has an empty component"),
        "." | ".." => return Err("it has a component \".\" or \"..\""),
        _ => {}
    }
    if component.len() > NAME_BYTES_MAX {
        return Err("it has a component of more than 255 bytes");
    }
    if component.contains('/') {
        return Err("a component may not hold a '/'");
    }
    // The kernel refuses the line feed; nothing good comes of the others.
    if component.chars().any(char::is_control) {
        return Err("it holds a control character");
    }
    Ok(())
}

/// The path of a slice: each dash goes one level down. The root is the empty text.
fn expand_slice(slice: &str) -> Result<String, &'static str> {
    let slice = match slice {
        "" => DEFAULT_SLICE,
        "-" | "-.slice" => return Ok(String::new()),
        slice => slice,
    };
    let Some(name) = slice.strip_suffix(".slice") else {
        return Err("the slice before the first ':' does not end with \".slice\"");
    };
    let mut path = String::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return Err("the slice before the first ':' has an empty part");
        }
        prefix.push_str(part);
        path.push_str(&format!("/{prefix}.slice"));
        prefix.push('-');
    }
    Ok(path)
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CgroupPath {
    type Err = Error;

    fn from_str(path: &str) -> Result<Self> {
        Self::new(path)
    }
}

impl TryFrom<String> for CgroupPath {
    type Error = Error;

    fn try_from(path: String) -> Result<Self> {
        Self::new(path)
    }
}

impl From<CgroupPath> for String {
    fn from(path: CgroupPath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for path in [
            "", "/", "//", "/a//b", "/a/", "a/", "..", "/..", "/a/../b", "a/./b", "/a\0b", "a\nb",
        ] {
            let error = CgroupPath::new(path).unwrap_err();
            assert!(matches!(error, Error::InvalidPath { .. }), "{path:?}");
        }
        assert!(CgroupPath::new("a".repeat(256)).is_err());
        assert!(CgroupPath::new("/a".repeat(1025)).is_err());
        assert!(CgroupPath::new("/a".repeat(1024)).is_ok());
        // These are names like any other.
        for path in ["/...", "a..b", "/kubepods/burstable/pod-1/x:y", "-"] {
            assert_eq!(CgroupPath::new(path).unwrap().as_str(), path);
        }
    }

    #[test]
    fn one_component_is_joined_and_no_more() {
        let path = CgroupPath::new("a").unwrap();
        assert_eq!(path.join("b").unwrap().as_str(), "a/b");
        for name in ["", "..", "b/c", "/b"] {
            assert!(path.join(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn what_is_above_is_a_cgroup_below_the_root_or_nothing() {
        for (text, above) in [
            ("/a", None),
            ("a", None),
            ("/a/b", Some("/a")),
            ("a/b/c", Some("a/b")),
        ] {
            let parent = CgroupPath::new(text).unwrap().parent();
            assert_eq!(parent.as_ref().map(CgroupPath::as_str), above, "{text}");
        }
    }

    #[test]
    fn an_empty_path_is_the_default() {
        for empty in [None, Some("")] {
            let of = |driver| CgroupPath::of_container(empty, driver, "web").unwrap();
            assert_eq!(of(CgroupDriver::Cgroupfs).as_str(), "/virtcontainers/web");
            assert_eq!(
                of(CgroupDriver::Systemd).as_str(),
                "/system.slice/virtc-web.scope"
            );
        }
        let given = CgroupPath::of_container(Some("a:b:c"), CgroupDriver::Cgroupfs, "web");
        assert_eq!(given.unwrap().as_str(), "a:b:c");
    }

    #[test]
    fn slices_expand_as_with_runc() {
        for (text, path) in [
            (
                "system.slice:docker:1234",
                "/system.slice/docker-1234.scope",
            ),
            (":docker:1234", "/system.slice/docker-1234.scope"),
            (
                "test-a-b.slice:p:n",
                "/test.slice/test-a.slice/test-a-b.slice/p-n.scope",
            ),
            ("-.slice:p:n", "/p-n.scope"),
            ("-:p:n", "/p-n.scope"),
            ("a.slice::n", "/a.slice/-n.scope"),
            ("a.slice:p:b.slice", "/a.slice/b.slice"),
            (
                "kubepods-besteffort-pod1_2.slice:cri-containerd:abc",
                "/kubepods.slice/kubepods-besteffort.slice/\
                 kubepods-besteffort-pod1_2.slice/cri-containerd-abc.scope",
            ),
        ] {
            assert_eq!(CgroupPath::from_systemd(text).unwrap().as_str(), path);
        }
        for text in [
            "",
            "a",
            "/a/b",
            "a.slice:b",
            "a.slice:b:c:d",
            "a:b:c",
            ".slice:b:c",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            "a-.slice:p:n",
            "a/b.slice:p:n",
            "a.slice:../p:n",
            "a.slice:p:../n",
            "a.slice:p:",
            "a.slice:p:\0",
            "..slice:p:n/..",
        ] {
            let error = CgroupPath::from_systemd(text).unwrap_err();
            assert!(matches!(error, Error::InvalidPath { .. }), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back_and_stays_below(text in "[ab./:\\-\0]{0,12}|\\PC{0,40}") {
            for path in [CgroupPath::new(text.clone()), CgroupPath::from_systemd(&text)] {
                let Ok(path) = path else { continue };
                prop_assert_eq!(&CgroupPath::new(path.as_str()).unwrap(), &path);
                prop_assert!(path.components().iter().all(|c| !matches!(*c, "" | "." | "..")));
                let json = serde_json::to_string(&path).unwrap();
                prop_assert_eq!(serde_json::from_str::<CgroupPath>(&json).unwrap(), path);
            }
        }
    }
}
