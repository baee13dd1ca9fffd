use serde::{Deserialize, Serialize};
use vc_types::ProcessIdentity;

use crate::Plugged;
use crate::mock::MockState;
use crate::qemu::QemuState;

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

    /// The VM's processes, for those who must end them without a driver.
    pub fn processes(&self) -> Vec<ProcessIdentity> {
        match self {
            Self::Qemu(state) => vec![state.process.clone()],
            Self::Mock(_) => Vec::new(),
        }
    }
}
