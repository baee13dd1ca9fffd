//! Namespaces of other containers that a container joins.
//!
//! In the specification that the host sends, the `path` of an `ipc`, `uts` or `pid` namespace can be
//! `container:<container id>`: the namespace that the first process of that container is in. That
//! process has to be there, started or not. No other path is taken: what is a path on the host is
//! none here, and the guest's own namespaces are the agent's.
//!
//! The namespace is opened here, and the descriptor is passed to the process that makes the
//! container. So it cannot be that of another process that has the pid by then.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use agent_protocol::guest::CONTAINER_NAMESPACE_PREFIX;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};

use super::Containers;
use crate::error::{Attempt as _, Error, Result};
use crate::process::Process;

const FIELD: &str = "linux.namespaces";

const GONE: &str = "does not exist";
const ENDED: &str = "has ended";

/// The namespaces that a container joins, held until it is made.
#[derive(Debug, Default)]
pub(super) struct JoinedNamespaces {
    joined: Vec<Joined>,
}

#[derive(Debug)]
struct Joined {
    kind: LinuxNamespaceType,
    /// Whose it is.
    other: String,
    first: Arc<Process>,
    /// Taken by the launch.
    file: Option<OwnedFd>,
}

impl JoinedNamespaces {
    /// Opens the namespaces that the specification of container `id` names, and puts paths of
    /// theirs there that the process which inherits the descriptors can open.
    ///
    /// A host name goes with a UTS namespace of one's own: with a joined one it is left out.
    ///
    /// # Errors
    ///
    /// [`Error::Join`] when there is no such container or its first process has ended,
    /// [`Error::Invalid`] for any other path.
    pub(super) fn open(spec: &mut Spec, id: &str, containers: &Containers) -> Result<Self> {
        let Some(linux) = spec.linux_mut() else {
            return Ok(Self::default());
        };
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        let mut this = Self::default();
        for namespace in &mut namespaces {
            let Some(path) = namespace.path().clone() else {
                continue;
            };
            let other = other_container(namespace, &path)?;
            if this.has(namespace.typ()) {
                return Err(invalid(&path, "is a second one of its type"));
            }
            let joined = open(id, other, namespace.typ(), containers)?;
            namespace.set_path(joined.path().map(Into::into));
            this.joined.push(joined);
        }
        linux.set_namespaces(Some(namespaces));
        if this.has(LinuxNamespaceType::Uts) {
            spec.set_hostname(None).set_domainname(None);
        }
        Ok(this)
    }

    /// Whether one of this kind is joined.
    pub(super) fn has(&self, kind: LinuxNamespaceType) -> bool {
        self.joined.iter().any(|joined| joined.kind == kind)
    }

    /// What the process that makes the container inherits.
    pub(super) fn take_files(&mut self) -> Vec<OwnedFd> {
        let files = self
            .joined
            .iter_mut()
            .filter_map(|joined| joined.file.take());
        files.collect()
    }

    /// Why container `id` could not be made: whatever `error` says, that the container which it
    /// was to join has ended meanwhile says more.
    pub(super) fn explain(&self, id: &str, error: Error) -> Error {
        let ended = self.joined.iter().find(|joined| joined.first.has_ended());
        ended.map_or(error, |joined| {
            refused(id, &joined.other, joined.kind, ENDED)
        })
    }
}

impl Joined {
    fn path(&self) -> Option<String> {
        let file = self.file.as_ref()?;
        Some(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }
}

/// The container that a path names.
fn other_container<'a>(namespace: &LinuxNamespace, path: &'a Path) -> Result<&'a str> {
    let other = path
        .to_str()
        .and_then(|path| path.strip_prefix(CONTAINER_NAMESPACE_PREFIX));
    let Some(other) = other else {
        return Err(invalid(
            path,
            "is no namespace of a container in this guest",
        ));
    };
    match namespace.typ() {
        LinuxNamespaceType::Ipc | LinuxNamespaceType::Uts | LinuxNamespaceType::Pid => Ok(other),
        _ => Err(invalid(path, "is of a type that containers do not share")),
    }
}

fn open(
    id: &str,
    other: &str,
    kind: LinuxNamespaceType,
    containers: &Containers,
) -> Result<Joined> {
    let first = match containers.get(other) {
        Ok(container) => Arc::clone(&container.init),
        Err(_) => return Err(refused(id, other, kind, GONE)),
    };
    if first.has_ended() {
        return Err(refused(id, other, kind, ENDED));
    }
    // It was not collected, and cannot be before we wait: the pid is still its own.
    let path = format!("/proc/{}/ns/{kind}", first.pid.as_raw_pid());
    let file = match File::open(&path) {
        Ok(file) => file,
        // It has ended and was not collected yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(refused(id, other, kind, ENDED));
        }
        error @ Err(_) => error.attempt(|| {
            format!("open the {kind} namespace of container {other:?} for container {id:?}")
        })?,
    };
    Ok(Joined {
        kind,
        other: other.to_owned(),
        first,
        file: Some(file.into()),
    })
}

fn refused(id: &str, other: &str, kind: LinuxNamespaceType, reason: &'static str) -> Error {
    Error::Join {
        container: id.to_owned(),
        kind: kind.to_string(),
        other: other.to_owned(),
        reason,
    }
}

fn invalid(path: &Path, reason: &'static str) -> Error {
    Error::Invalid {
        field: FIELD,
        value: path.display().to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxNamespaceBuilder;

    use super::*;

    fn opened(namespaces: &[(LinuxNamespaceType, Option<&str>)]) -> Result<JoinedNamespaces> {
        let namespaces = namespaces.iter().map(|(kind, path)| {
            let mut namespace = LinuxNamespaceBuilder::default().typ(*kind).build().unwrap();
            namespace.set_path(path.map(Into::into));
            namespace
        });
        let mut spec = Spec::default();
        let linux = spec.linux_mut().as_mut().unwrap();
        linux.set_namespaces(Some(namespaces.collect()));
        JoinedNamespaces::open(&mut spec, "c1", &Containers::default())
    }

    #[test]
    fn namespaces_of_its_own_are_left_as_they_are() {
        let mut own = opened(&[
            (LinuxNamespaceType::Pid, None),
            (LinuxNamespaceType::Ipc, None),
        ]);
        let own = own.as_mut().unwrap();
        assert!(!own.has(LinuxNamespaceType::Pid) && own.take_files().is_empty());
    }

    #[test]
    fn a_container_that_is_not_there_is_named_with_the_one_that_wants_it() {
        let error = opened(&[(LinuxNamespaceType::Uts, Some("container:c0"))]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "container \"c1\" cannot join the uts namespace of container \"c0\", which does not exist"
        );
        // Itself is not there yet.
        let error = opened(&[(LinuxNamespaceType::Pid, Some("container:c1"))]).unwrap_err();
        assert!(matches!(error, Error::Join { .. }), "{error}");
    }

    #[test]
    fn every_other_path_is_refused_by_name() {
        for path in [
            "/proc/1/ns/ipc",
            "/proc/self/fd/3",
            "Container:c0",
            "sandbox",
            "",
        ] {
            let error = opened(&[(LinuxNamespaceType::Ipc, Some(path))]).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
            assert!(error.to_string().contains(path), "{error}");
        }
        for kind in [
            LinuxNamespaceType::Mount,
            LinuxNamespaceType::Network,
            LinuxNamespaceType::User,
            LinuxNamespaceType::Cgroup,
        ] {
            let error = opened(&[(kind, Some("container:c0"))]).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
        }
    }
}
