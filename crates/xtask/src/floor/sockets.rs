//! Where the VMM of a template or of a clone is reached.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::command_line::OfTemplate;
use super::qmp::Qmp;
use super::vm::accept;
use crate::running::Running;

/// Sockets to which the VMM connects.
#[derive(Debug)]
pub(super) struct Sockets {
    monitor: UnixListener,
    port: UnixListener,
    state: UnixListener,
    directory: TempDir,
}

impl Sockets {
    pub(super) fn listen() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let listen = |name: &str| UnixListener::bind(directory.path().join(name));
        Ok(Self {
            monitor: listen("monitor")?,
            port: listen("port")?,
            state: listen("state")?,
            directory,
        })
    }

    /// For the command line of a VMM with its memory in this file.
    pub(super) fn with_memory(&self, memory: &Path) -> OfTemplate {
        OfTemplate {
            memory: memory.to_owned(),
            monitor: self.at("monitor"),
            port: self.at("port"),
        }
    }

    /// Where the VMM is to save its state.
    pub(super) fn state_uri(&self) -> String {
        format!("unix:{}", self.at("state").display())
    }

    /// Waits for the VMM and greets it; its monitor, and the guest's second serial line.
    pub(super) fn accept(&self, vmm: &Running) -> Result<(Qmp, UnixStream)> {
        let monitor = accept(&self.monitor, &vmm.0)?;
        let qmp = Qmp::greet(monitor.context("the VMM ended at its start")?)?;
        let port = accept(&self.port, &vmm.0)?;
        Ok((qmp, port.context("the VMM ended at its start")?))
    }

    /// Waits for the state that the VMM saves.
    pub(super) fn accept_state(&self, vmm: &Running) -> Result<UnixStream> {
        let state = accept(&self.state, &vmm.0)?;
        state.context("the VMM ended before it saved its state")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}
