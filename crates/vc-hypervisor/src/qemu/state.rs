use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vc_types::ProcessIdentity;

use crate::{Accelerator, AgentAddress, HotPlugRecord};

/// What is stored of a VM of QEMU's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuState {
    /// QEMU.
    pub process: ProcessIdentity,
    /// The socket that takes QMP commands, one client at a time.
    pub commands_socket: PathBuf,
    /// Where the agent is reached.
    pub agent: AgentAddress,
    /// What executes the guest's code.
    pub accelerator: Accelerator,
    /// Its root ports and what is behind them.
    #[serde(default)]
    pub hot_plug: HotPlugRecord,
}

impl QemuState {
    /// See [`DriverState::moved`](crate::DriverState::moved).
    pub(crate) fn moved(mut self, directory: &Path, agent: AgentAddress) -> Self {
        if let Some(name) = self.commands_socket.file_name() {
            self.commands_socket = directory.join(name);
        }
        self.agent = agent;
        self
    }
}
