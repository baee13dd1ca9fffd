use std::path::Path;

use serde::{Deserialize, Serialize};
use vc_types::ProcessIdentity;

use crate::mock::MockState;
use crate::qemu::QemuState;
use crate::{AgentAddress, Plugged};

/// What is stored of a running VM, by driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DriverState {
    /// A VM of the QEMU driver.
    Qemu(QemuState),
    /// A VM of the mock driver.
    Mock(MockState),
}

impl DriverState {
    /// The driver's name as configurations have it.
    pub const fn driver(&self) -> &'static str {
        match self {
            Self::Qemu(_) => "qemu",
            Self::Mock(_) => "mock",
        }
    }

    /// The devices that were plugged in, by the account of the host when this was stored.
    pub fn plugged(&self) -> Vec<Plugged> {
        match self {
            Self::Qemu(state) => state.hot_plug.plugged(),
            Self::Mock(state) => state.hot_plug.plugged(),
        }
    }

    /// The same VM, whose sockets were moved into `directory` under the names that they had, and
    /// whose agent is reached at `agent` now.
    #[must_use]
    pub fn moved(self, directory: &Path, agent: AgentAddress) -> Self {
        match self {
            Self::Qemu(state) => Self::Qemu(state.moved(directory, agent)),
            other @ Self::Mock(_) => other,
        }
    }

    /// The VM's processes, for those who must end them without a driver.
    pub fn processes(&self) -> Vec<ProcessIdentity> {
        match self {
            Self::Qemu(state) => vec![state.process.clone()],
            Self::Mock(_) => Vec::new(),
        }
    }
}
