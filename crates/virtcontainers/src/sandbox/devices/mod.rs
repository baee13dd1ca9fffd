//! Devices that are added to a running sandbox: the call and its types. None can be added yet.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::handle::SandboxHandle;
use crate::error::{Error, Result};

/// A device of the host that a running sandbox is to get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeviceConfig {
    /// A block device or a disk image.
    Block {
        /// On the host.
        path: PathBuf,
        /// Whether the guest can only read it.
        read_only: bool,
    },
    /// A PCI device, which the guest gets for itself.
    Vfio {
        /// Its address on the host, such as `0000:01:00.0`.
        address: String,
    },
}

impl SandboxHandle {
    /// Adds a device while the sandbox runs. Its place: one operation on the sandbox, the device
    /// in its state before it is plugged, and removed with the sandbox.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for every kind: none can be plugged yet. [`Error::Store`] when the
    /// sandbox was removed.
    pub async fn add_device(&self, device: &DeviceConfig) -> Result<()> {
        self.status()?;
        let what = match device {
            DeviceConfig::Block { path, .. } => {
                format!(
                    "adding the block device {} to a running sandbox",
                    path.display()
                )
            }
            DeviceConfig::Vfio { address } => {
                format!("adding the PCI device {address} to a running sandbox")
            }
        };
        Err(Error::Unsupported { what })
    }
}
