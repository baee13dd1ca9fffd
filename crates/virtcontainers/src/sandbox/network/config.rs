use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vc_network::PublishedPort;

/// The network of a sandbox, as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NetworkConfig {
    /// Loopback alone.
    #[default]
    None,
    /// What is in a network namespace of the host: each of its links that has an address becomes an
    /// interface of the guest, with the link's name, addresses and routes.
    Namespace {
        /// Where it is, such as `/run/netns/web` or `/proc/PID/ns/net`.
        path: PathBuf,
        /// Whether connections that are made inside the namespace to its loopback addresses come to
        /// those of the guest, as a port-forward of Kubernetes needs it. Programs in the namespace
        /// reach each other by them no more then.
        #[serde(default)]
        loopback_relay: bool,
    },
    /// Connections that a process of the host makes for the guest, by IPv4: nothing is set up or
    /// changed for it. `[network]` of the configuration says which process.
    User {
        /// Ports of the host that lead to ports of the guest.
        ports: Vec<PublishedPort>,
    },
    /// An address behind a private bridge of the host, by which the guest reaches what the host
    /// reaches, but not its loopback; `[network]` of the configuration says which bridge.
    Nat {
        /// Ports of the host that lead to ports of the guest.
        ports: Vec<PublishedPort>,
    },
}
