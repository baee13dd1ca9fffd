//! Disks that are the roots of containers: each comes within the making of its container, and goes with its
//! removal.

use vc_hypervisor::{Disk, HotDevice};
use vc_store::{OperationGuard, SandboxRecord};

use super::{driver_state, image, plug_within, written};
use crate::container::placement::{PlacedDisk, root_disk_serial};
use crate::error::Result;
use crate::runtime::blocking;
use crate::sandbox::SandboxHandle;

/// Opens a disk for a machine. Blocks.
///
/// # Errors
///
/// [`crate::Error::Device`] for what is no disk or is in use, [`crate::Error::System`].
pub(in crate::sandbox) fn open(disk: &PlacedDisk) -> Result<Disk> {
    Ok(Disk {
        image: image::open(&disk.path, disk.read_only)?,
        serial: disk.serial.clone(),
        read_only: disk.read_only,
        scratch: false,
    })
}

impl SandboxHandle {
    /// Plugs in the disks of a container that is being made. What was plugged in before an error is in the
    /// state, and is taken out with the container.
    pub(in crate::sandbox) async fn plug_disks(
        &self,
        operation: &OperationGuard,
        disks: &[PlacedDisk],
    ) -> Result<()> {
        for disk in disks {
            let disk = disk.clone();
            let device = HotDevice::Disk(blocking(move || open(&disk)).await?);
            let vm = self.vm(&self.0.directory.read()?).await?;
            plug_within(operation, &*vm, device).await?;
        }
        Ok(())
    }

    /// Takes out the disk of a container that the guest has removed; one that came with the machine stays.
    pub(in crate::sandbox) async fn unplug_disk(
        &self,
        operation: &OperationGuard,
        record: &SandboxRecord,
        container: u64,
    ) -> Result<()> {
        let serial = root_disk_serial(container);
        let plugged = driver_state(record)?.map(|state| state.plugged());
        let mut plugged = plugged.unwrap_or_default().into_iter();
        if !plugged.any(|device| device.id == serial) {
            return Ok(());
        }
        let vm = self.vm(record).await?;
        let removed = vm.unplug(&serial).await;
        let state = vm.state();
        written(operation.update(|record| record.set_driver_state(Some(&state)))?)?;
        Ok(removed?)
    }
}
