//! The frame that says which stream a connection is.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which of a process's three standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// The host sends, the process reads.
    Stdin,
    /// The process writes, the host receives. A process with a terminal has this one only.
    Stdout,
    /// The process writes, the host receives.
    Stderr,
}

/// Which stream of which process.
///
/// Fields that are not known are ignored, so that a newer host can say more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The container.
    pub container_id: String,
    /// The process in it; the container's id, or empty, for its first one.
    #[serde(default)]
    pub exec_id: String,
    /// The stream.
    pub stream: Stream,
}

impl Hello {
    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(Error::Hello)
    }

    pub(super) fn from_json(payload: &[u8]) -> Result<Self> {
        serde_json::from_slice(payload).map_err(Error::Hello)
    }
}
