//! What is read of a bundle before its root is mounted.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceType, LinuxNamespaceType, Spec};
use virtcontainers::PodRole;

use crate::error::{Error, Result};

/// What containerd's plug-in notes about each container of a pod.
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";

/// Where a bundle's root is mounted.
pub(crate) fn root_of(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}

/// The specification of a bundle.
///
/// # Errors
///
/// When `config.json` cannot be read.
pub(crate) fn spec_of(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let read = std::fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
    read.map_err(|source| Error::System {
        attempt: format!("read {}", path.display()),
        source,
    })
}

/// The same, of one that may be a sandbox's without a specification: it asks for nothing then.
///
/// # Errors
///
/// Those of [`spec_of`] but for a missing `config.json`.
pub(crate) fn spec_if_any(bundle: &Path) -> Result<Spec> {
    match spec_of(bundle) {
        Err(Error::System { source, .. }) if source.kind() == ErrorKind::NotFound => {
            let mut spec = Spec::default();
            spec.set_annotations(None).set_linux(None);
            Ok(spec)
        }
        read => read,
    }
}

/// The sandbox that a container belongs to: its own, or the one that it is to join.
///
/// # Errors
///
/// When the specification names something that cannot be one.
pub(crate) fn sandbox_of(spec: &Spec, id: &str) -> Result<String> {
    Ok(match PodRole::of(spec)? {
        PodRole::Sandbox => id.to_owned(),
        PodRole::Member(sandbox) => sandbox.to_string(),
    })
}

/// Refuses by name what only a host has, before anything is made.
///
/// # Errors
///
/// [`Error::Unsupported`].
pub(crate) fn check(spec: &Spec) -> Result<()> {
    let unsupported = |what: String| Err(Error::Unsupported(what));
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref());
    let has = |kind| {
        namespaces
            .unwrap_or_default()
            .iter()
            .any(|one| one.typ() == kind)
    };
    // Nobody but Kubernetes asks for the host's by leaving one out.
    if annotations_of(spec).contains_key(CONTAINER_TYPE) {
        for (kind, what) in [
            (LinuxNamespaceType::Network, "network (hostNetwork)"),
            (LinuxNamespaceType::Pid, "processes (hostPID)"),
            (LinuxNamespaceType::Ipc, "shared memory (hostIPC)"),
        ] {
            if !has(kind) {
                return unsupported(format!("a pod with the host's {what}"));
            }
        }
    }
    let mut devices = linux
        .iter()
        .flat_map(|linux| linux.devices().iter().flatten());
    if let Some(device) = devices.find(|device| device.typ() == LinuxDeviceType::B) {
        return unsupported(format!(
            "the host's block device at {} (a block volume, or a privileged container whose handler does \
             not have `privileged_without_host_devices`)",
            device.path().display()
        ));
    }
    let mut mounts = spec.mounts().iter().flatten();
    let comes_back = |option: &String| matches!(option.as_str(), "shared" | "rshared");
    if let Some(mount) = mounts.find(|mount| mount.options().iter().flatten().any(comes_back)) {
        return unsupported(format!(
            "a volume whose later mounts come to the host, at {} (mountPropagation: Bidirectional)",
            mount.destination().display()
        ));
    }
    Ok(())
}

/// What whoever made a bundle noted about it.
pub(crate) fn annotations_of(spec: &Spec) -> BTreeMap<String, String> {
    let annotations = spec.annotations().clone().unwrap_or_default();
    annotations.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxDeviceBuilder, LinuxNamespace, MountBuilder};

    use super::*;

    /// A pod's specification with these namespaces.
    fn pod(kinds: &[LinuxNamespaceType]) -> Spec {
        let mut spec = Spec::default();
        let notes = [(CONTAINER_TYPE.to_owned(), "sandbox".to_owned())];
        spec.set_annotations(Some(notes.into()));
        let namespaces = kinds.iter().map(|&kind| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            namespace
        });
        let linux = spec.linux_mut().as_mut().unwrap();
        linux.set_namespaces(Some(namespaces.collect()));
        spec
    }

    #[track_caller]
    fn refused(spec: &Spec, what: &str) {
        let said = check(spec).unwrap_err().to_string();
        assert!(said.contains(what), "{said}");
    }

    #[test]
    fn what_only_a_host_has_is_refused_by_name() {
        use LinuxNamespaceType::{Ipc, Network, Pid};
        let all = pod(&[Ipc, Network, Pid]);
        check(&all).unwrap();
        refused(&pod(&[Ipc, Pid]), "hostNetwork");
        refused(&pod(&[Ipc, Network]), "hostPID");
        refused(&pod(&[Network, Pid]), "hostIPC");
        // Others leave out what they do not need.
        let mut plain = pod(&[]);
        plain.set_annotations(None);
        check(&plain).unwrap();

        let device = |kind| {
            let device = LinuxDeviceBuilder::default().path("/dev/given").typ(kind);
            let mut spec = all.clone();
            let linux = spec.linux_mut().as_mut().unwrap();
            linux.set_devices(Some(vec![device.major(7).minor(0).build().unwrap()]));
            spec
        };
        check(&device(LinuxDeviceType::C)).unwrap();
        refused(&device(LinuxDeviceType::B), "/dev/given");

        let volume = |propagation: &str| {
            let options = vec!["rbind".to_owned(), propagation.to_owned()];
            let mount = MountBuilder::default().destination("/data").typ("bind");
            let mut spec = all.clone();
            spec.set_mounts(Some(vec![mount.options(options).build().unwrap()]));
            spec
        };
        check(&volume("rslave")).unwrap();
        refused(&volume("rshared"), "/data");
    }
}
