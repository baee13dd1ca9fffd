use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a VM's agent can be reached: what the hypervisor knows and the agent's client uses.
///
/// The ports behind every address are the same, see [`crate::guest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "transport", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AgentAddress {
    /// Hybrid vsock: a Unix socket that takes `CONNECT <port>`; what the guest dials arrives at
    /// sockets whose names are this one's, `_` and the port.
    HybridVsock {
        /// The Unix socket, its owner's alone.
        socket: PathBuf,
    },
    /// The host kernel's vsock (vhost-vsock).
    Vsock {
        /// The VM's context id, 3 or more.
        cid: u32,
    },
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HybridVsock { socket } => write!(f, "{}", socket.display()),
            Self::Vsock { cid } => write!(f, "vsock context id {cid}"),
        }
    }
}
