use std::fs::File;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// Bytes of a report. The words of a guest in it are bounded before.
const REPORT_BYTES_MAX: u64 = 1 << 20;

/// What the stand-in tells `create`, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The container is made and waits for its start.
    Created,
    /// It is not, and nothing is left of it.
    Failed(Failed),
}

/// Why a container was not made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) message: String,
    pub(crate) causes: Vec<String>,
    pub(crate) hint: Option<String>,
}

impl Report {
    /// Sends it. The end of the pipe is the end of the report.
    pub(super) fn send(&self, mut pipe: File) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        pipe.write_all(&text)
    }

    /// Waits for it; nothing when the stand-in ended without a word.
    ///
    /// # Errors
    ///
    /// What the system says, or a report that is none.
    pub(crate) fn receive(pipe: File) -> io::Result<Option<Self>> {
        let mut text = Vec::new();
        pipe.take(REPORT_BYTES_MAX).read_to_end(&mut text)?;
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(io::Error::other)
    }
}
