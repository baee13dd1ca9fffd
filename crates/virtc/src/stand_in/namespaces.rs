//! The namespaces on the host of the process that stands for a container: what others find by its
//! pid. Those of the guest are made there.

use std::fs::File;
use std::io;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use virtcontainers::{HostNetwork, NetworkConfig};

use crate::error::{FAILED, Failure};

/// Those that engines look for: they give a container's network to its pid, and others join all
/// three. Files and processes of the host stay in sight, which keeping a machine takes.
const KINDS: [(LinuxNamespaceType, CloneFlags); 3] = [
    (LinuxNamespaceType::Network, CloneFlags::CLONE_NEWNET),
    (LinuxNamespaceType::Ipc, CloneFlags::CLONE_NEWIPC),
    (LinuxNamespaceType::Uts, CloneFlags::CLONE_NEWUTS),
];

/// The network that a container gets from the namespaces of its specification.
#[derive(Debug)]
pub(super) struct Entered {
    /// The container's.
    pub(super) network: NetworkConfig,
    /// That in which this process was before.
    pub(super) host_network: Arc<HostNetwork>,
}

/// Joins or makes the namespaces that the specification asks for. Only while this process has one
/// thread: those that come later have them too.
///
/// # Errors
///
/// With the namespace that cannot be had.
pub(super) fn enter(spec: &Spec) -> Result<Entered, Failure> {
    let host_network = HostNetwork::of_caller().map_err(|error| Failure::plain(FAILED, &error))?;
    let mut network = NetworkConfig::None;
    let linux = spec.linux().as_ref();
    let asked = linux.and_then(|linux| linux.namespaces().as_deref());
    for namespace in asked.unwrap_or_default() {
        let kind = namespace.typ();
        let Some((_, flag)) = KINDS.iter().find(|(known, _)| *known == kind) else {
            continue;
        };
        let entered = match namespace.path() {
            Some(path) => File::open(path).and_then(|file| Ok(setns(file, *flag)?)),
            None => unshare(*flag).map_err(io::Error::from),
        };
        entered.map_err(|error| {
            let of = match namespace.path() {
                Some(path) => format!("joining the {kind} namespace {}", path.display()),
                None => format!("a new {kind} namespace"),
            };
            Failure::plain(FAILED, &error).note(of)
        })?;
        if kind == LinuxNamespaceType::Network {
            // Our own is looked at by its name too, as others do who come after our end.
            let own = || format!("/proc/{}/ns/net", std::process::id()).into();
            network = NetworkConfig::Namespace {
                path: namespace.path().clone().unwrap_or_else(own),
                loopback_relay: false,
            };
        }
        if kind == LinuxNamespaceType::Uts
            && namespace.path().is_none()
            && let Some(name) = spec.hostname()
        {
            // The guest has its own in any case.
            let _ = nix::unistd::sethostname(name);
        }
    }
    Ok(Entered {
        network,
        host_network: Arc::new(host_network),
    })
}
