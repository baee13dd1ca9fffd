//! Where on the host the VMM and the device processes of a sandbox are.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};
use vc_cgroups::CgroupPath;
use vc_config::SandboxCgroup;
use vc_types::SandboxId;

use super::cgroups::root_tag;
use crate::error::Result;

/// What its name in a pod's cgroup begins with: there it is among what others have made.
const NAME_PREFIX: &str = "virtc";

/// Which cgroup the VMM and the device processes of a sandbox are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HostCgroup {
    /// That of whoever makes the sandbox.
    Inherited,
    /// One of the sandbox's own among those of all sandboxes, `/virtcontainers/<name>`.
    Own,
    /// One of the sandbox's own below this one, which is the pod's: what holds for the pod holds for
    /// its machine too.
    InPod(CgroupPath),
}

impl HostCgroup {
    /// Where the configuration wants that of a sandbox in whose pod containers have their cgroups
    /// below `pod`; [`HostCgroup::Own`] where no cgroup is the pod's.
    ///
    /// ```
    /// use vc_cgroups::CgroupPath;
    /// use vc_config::SandboxCgroup;
    /// use virtcontainers::HostCgroup;
    ///
    /// let pod = CgroupPath::new("/kubepods/pod1")?;
    /// let chosen = HostCgroup::chosen(SandboxCgroup::Pod, Some(pod.clone()));
    /// assert_eq!(chosen, HostCgroup::InPod(pod));
    /// assert_eq!(HostCgroup::chosen(SandboxCgroup::Pod, None), HostCgroup::Own);
    /// # Ok::<(), vc_cgroups::Error>(())
    /// ```
    pub fn chosen(choice: SandboxCgroup, pod: Option<CgroupPath>) -> Self {
        match (choice, pod) {
            (SandboxCgroup::Pod, Some(pod)) => Self::InPod(pod),
            (SandboxCgroup::Pod, None) | (SandboxCgroup::Own, _) => Self::Own,
        }
    }

    /// Reads it where it may be what older descriptions have: whether the sandbox has one of its own.
    pub(super) fn or_flag<'de, D: Deserializer<'de>>(
        from: D,
    ) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Saved {
            Flag(bool),
            Cgroup(HostCgroup),
        }
        Ok(match Saved::deserialize(from)? {
            Saved::Flag(true) => Self::Own,
            Saved::Flag(false) => Self::Inherited,
            Saved::Cgroup(cgroup) => cgroup,
        })
    }

    /// Whether the sandbox has one of its own, wherever that is.
    pub fn is_own(&self) -> bool {
        *self != Self::Inherited
    }

    /// Its path for the sandbox with this name below this state root; nothing where it has none of its
    /// own. It is never that of a container, nor above or below one: what of a pod is in a container's
    /// cgroup ends with that container, and in version 2 a cgroup with processes has none below it.
    pub(super) fn path(&self, root: &Path, sandbox: &SandboxId) -> Result<Option<CgroupPath>> {
        let name = format!("{sandbox}-{}", root_tag(root));
        Ok(match self {
            Self::Inherited => None,
            Self::Own => Some(CgroupPath::below_default_parent(&name)?),
            Self::InPod(pod) => Some(pod.join(&format!("{NAME_PREFIX}-{name}"))?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> CgroupPath {
        text.parse().unwrap()
    }

    #[test]
    fn only_where_it_is_asked_for_and_a_pod_has_one_it_is_the_pods() {
        use SandboxCgroup::{Own, Pod};
        let pod = || Some(path("/kubepods/burstable/pod1"));
        assert_eq!(HostCgroup::chosen(Own, pod()), HostCgroup::Own);
        assert_eq!(HostCgroup::chosen(Own, None), HostCgroup::Own);
        assert_eq!(HostCgroup::chosen(Pod, None), HostCgroup::Own);
        let chosen = HostCgroup::chosen(Pod, pod());
        assert_eq!(chosen, HostCgroup::InPod(path("/kubepods/burstable/pod1")));
    }

    #[test]
    fn an_older_description_says_only_whether_there_is_one() {
        for (text, wanted) in [
            ("true", HostCgroup::Own),
            ("false", HostCgroup::Inherited),
            ("\"own\"", HostCgroup::Own),
            ("{\"in-pod\":\"/a/b\"}", HostCgroup::InPod(path("/a/b"))),
        ] {
            let mut from = serde_json::Deserializer::from_str(text);
            assert_eq!(HostCgroup::or_flag(&mut from).unwrap(), wanted);
        }
    }

    #[test]
    fn two_roots_have_two_cgroups_for_one_name() {
        let id: SandboxId = "web".parse().unwrap();
        let pod = HostCgroup::InPod(path("/kubepods/pod1"));
        for (cgroup, begin) in [
            (HostCgroup::Own, "/virtcontainers/web-"),
            (pod, "/kubepods/pod1/virtc-web-"),
        ] {
            let of = |root: &str| cgroup.path(Path::new(root), &id).unwrap().unwrap();
            assert_eq!(of("/run/a"), of("/run/a"));
            assert_ne!(of("/run/a"), of("/run/b"));
            assert!(of("/run/a").as_str().starts_with(begin));
        }
        let none = HostCgroup::Inherited.path(Path::new("/run/a"), &id);
        assert_eq!(none.unwrap(), None);
    }
}
