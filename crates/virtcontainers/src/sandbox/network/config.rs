use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    },
}
