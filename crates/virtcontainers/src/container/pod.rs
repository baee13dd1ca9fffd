//! Pods: which sandbox a bundle's container belongs to, and what it shares with the others.

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::runtime::Spec;
use vc_store::{ContainerRecord, SandboxRecord};
use vc_types::{ContainerId, ContainerState, SandboxId};

use crate::error::Result;

/// Annotations that say what a container is in its pod, and which sandbox it is in: containerd's,
/// then CRI-O's, which podman has too.
const KEYS: [(&str, &str); 2] = [
    (
        "io.kubernetes.cri.container-type",
        "io.kubernetes.cri.sandbox-id",
    ),
    (
        "io.kubernetes.cri-o.ContainerType",
        "io.kubernetes.cri-o.SandboxID",
    ),
];

/// What a member of a pod is called there.
const MEMBER: &str = "container";

/// What the container is called that only holds a pod's namespaces.
const HOLDER: &str = "sandbox";

/// Where a container's sandbox comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodRole {
    /// It has one of its own, in which others may come.
    Sandbox,
    /// It joins this one.
    Member(SandboxId),
}

impl PodRole {
    /// What the annotations of a specification say.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Types`] when the sandbox's name cannot be one, as when it is missing.
    pub fn of(spec: &Spec) -> Result<Self> {
        let annotations = spec.annotations().as_ref();
        let value = |key: &str| annotations.and_then(|all| all.get(key)).map(String::as_str);
        for (kind, sandbox) in KEYS {
            if value(kind) == Some(MEMBER) {
                let sandbox = SandboxId::new(value(sandbox).unwrap_or_default())?;
                return Ok(Self::Member(sandbox));
            }
        }
        Ok(Self::Sandbox)
    }
}

/// Whether a container only holds the namespaces of a pod, and does nothing itself.
pub(crate) fn holds_a_pod(spec: &Spec) -> bool {
    let annotations = spec.annotations().as_ref();
    let value = |key: &str| annotations.and_then(|all| all.get(key)).map(String::as_str);
    KEYS.iter().any(|(kind, _)| value(kind) == Some(HOLDER))
}

/// The containers that a new one can share namespaces with, by the processes on the host that
/// stand for them.
#[derive(Clone, Debug, Default)]
pub struct Neighbours(BTreeMap<i32, ContainerId>);

impl Neighbours {
    /// Those of a sandbox.
    pub(crate) fn of(record: &SandboxRecord) -> Self {
        let running = |entry: &ContainerRecord| entry.state != ContainerState::Stopped;
        let living = record.containers.iter().filter_map(|(id, entry)| {
            let stand_in = entry.stand_in.as_ref().filter(|_| running(entry))?;
            stand_in.is_alive().then(|| (stand_in.pid(), id.clone()))
        });
        Self(living.collect())
    }

    /// Adds one that something else on the host stands for too: a thread of its stand-in, say.
    pub fn add(&mut self, pid: i32, container: ContainerId) {
        self.0.insert(pid, container);
    }

    /// The container whose stand-in has this namespace.
    pub(crate) fn at(&self, path: &Path) -> Option<&ContainerId> {
        self.0.get(&pid_of(path)?)
    }
}

/// The process of a path of the form `/proc/PID/ns/KIND`.
pub(crate) fn pid_of(path: &Path) -> Option<i32> {
    let rest = path.strip_prefix("/proc").ok()?;
    let mut names = rest.iter().map(|name| name.to_str());
    let pid = names.next()??.parse().ok()?;
    (names.next()? == Some("ns")).then_some(pid)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use vc_store::ContainerRecord;
    use vc_types::ProcessIdentity;

    use super::*;

    fn role(annotations: &[(&str, &str)]) -> Result<PodRole> {
        let mut spec = Spec::default();
        let annotations: HashMap<String, String> = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        spec.set_annotations(Some(annotations));
        PodRole::of(&spec)
    }

    #[test]
    fn a_member_is_known_by_the_words_of_each_engine() {
        let member = PodRole::Member("p1".parse().unwrap());
        for (kind, sandbox) in KEYS {
            assert_eq!(
                role(&[(kind, "container"), (sandbox, "p1")]).unwrap(),
                member
            );
            assert_eq!(
                role(&[(kind, "sandbox"), (sandbox, "p1")]).unwrap(),
                PodRole::Sandbox
            );
            assert!(role(&[(kind, "container")]).is_err());
            assert!(role(&[(kind, "container"), (sandbox, "../p1")]).is_err());
        }
        assert_eq!(role(&[]).unwrap(), PodRole::Sandbox);
        assert_eq!(PodRole::of(&Spec::default()).unwrap(), PodRole::Sandbox);
    }

    #[test]
    fn a_neighbour_is_found_by_a_living_stand_in() {
        let mut record = SandboxRecord::new("p1".parse().unwrap()).unwrap();
        let mut entry = ContainerRecord::new(Vec::new());
        entry.stand_in = Some(ProcessIdentity::current().unwrap());
        let id: ContainerId = "c1".parse().unwrap();
        record.containers.insert(id.clone(), entry);
        let neighbours = Neighbours::of(&record);
        let own = std::process::id();
        let at = |path: String| neighbours.at(Path::new(&path));
        assert_eq!(at(format!("/proc/{own}/ns/ipc")), Some(&id));
        for other in [
            format!("/proc/{own}/ipc"),
            "/proc/1/ns/ipc".into(),
            format!("/x/{own}/ns/ipc"),
        ] {
            assert_eq!(at(other), None);
        }
        // One that has ended shares nothing any more, though what stands for it may not have ended.
        record.containers.get_mut(&id).unwrap().state = ContainerState::Stopped;
        let ended = Neighbours::of(&record);
        assert_eq!(ended.at(Path::new(&format!("/proc/{own}/ns/ipc"))), None);
        // What else stands for one.
        let mut neighbours = neighbours.clone();
        neighbours.add(1, "c2".parse().unwrap());
        let found = neighbours.at(Path::new("/proc/1/ns/pid"));
        assert_eq!(found.map(ContainerId::as_str), Some("c2"));
    }
}
