//! What a device process prints, bounded: a guest may make it print without an end.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use vc_hypervisor::log::{BoundedLog, drain};
use vc_types::SandboxId;
use vc_types::limits::PROCESS_LOG_BYTES_MAX;

use crate::error::{Error, Result};

/// Starts a log in `directory`, and gives the end that the process writes to. The log ends with
/// the last holder of that end.
///
/// # Errors
///
/// [`Error::System`] when the log cannot be made.
pub(crate) fn start(directory: &Path, sandbox: &SandboxId, name: &'static str) -> Result<OwnedFd> {
    let path = directory.join(format!("{name}.log"));
    let make = || -> io::Result<OwnedFd> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let log = BoundedLog::new(options.open(&path)?, PROCESS_LOG_BYTES_MAX)?;
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        tokio::spawn(drain(read, log, sandbox.clone(), name));
        Ok(write)
    };
    make().map_err(|source| Error::System {
        attempt: format!("make {}", path.display()),
        source,
    })
}
