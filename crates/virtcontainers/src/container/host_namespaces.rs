//! The namespaces on the host of the process that stands for a container: what others find by its
//! pid. Those of the guest are made there.

use std::fs::File;
use std::io;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use vc_network::HostNetwork;

use crate::error::{Error, Result};
use crate::sandbox::NetworkConfig;

/// Those that engines look for: they give a container's network to its pid, and others join all
/// three. Files and processes of the host stay in sight, which keeping a machine takes.
const KINDS: [(LinuxNamespaceType, CloneFlags); 3] = [
    (LinuxNamespaceType::Network, CloneFlags::CLONE_NEWNET),
    (LinuxNamespaceType::Ipc, CloneFlags::CLONE_NEWIPC),
    (LinuxNamespaceType::Uts, CloneFlags::CLONE_NEWUTS),
];

/// The network that a container gets from the namespaces of its specification.
#[derive(Debug)]
pub struct HostNamespaces {
    /// The container's.
    pub network: NetworkConfig,
    /// That in which this process was before: for [`crate::RuntimeOptions::host_network`].
    pub host_network: Arc<HostNetwork>,
}

impl HostNamespaces {
    /// Joins or makes the namespaces that the specification asks for. Only while this process has
    /// one thread: those that come later have them too. With `loopback_relay`, connections to the
    /// network namespace's loopback are to come to the guest.
    ///
    /// # Errors
    ///
    /// [`Error::System`] with the namespace that cannot be had, [`Error::Network`] when the host's
    /// own cannot be looked at.
    pub fn enter(spec: &Spec, loopback_relay: bool) -> Result<Self> {
        let host_network = HostNetwork::of_caller()?;
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
            entered.map_err(|source| Error::System {
                attempt: match namespace.path() {
                    Some(path) => format!("join the {kind} namespace {}", path.display()),
                    None => format!("make a {kind} namespace"),
                },
                source,
            })?;
            if kind == LinuxNamespaceType::Network {
                // Our own is looked at by its name too, as others do who come after our end.
                let own = || format!("/proc/{}/ns/net", std::process::id()).into();
                network = NetworkConfig::Namespace {
                    path: namespace.path().clone().unwrap_or_else(own),
                    loopback_relay,
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
        Ok(Self {
            network,
            host_network: Arc::new(host_network),
        })
    }
}
