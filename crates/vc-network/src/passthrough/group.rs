//! IOMMU groups: devices that cannot be kept from each other.

use std::io;

use vc_types::PciAddress;

use super::sysfs::HostDevices;

/// A group, and the devices in it.
#[derive(Debug)]
pub(super) struct Group {
    number: String,
    devices: Vec<PciAddress>,
}

/// The group of a device; none without an IOMMU.
pub(super) fn of(host: &HostDevices, address: PciAddress) -> io::Result<Option<Group>> {
    let Some(number) = host.group_of(address)? else {
        return Ok(None);
    };
    let devices = host.devices_of_group(&number)?;
    Ok(Some(Group { number, devices }))
}

impl Group {
    /// Its number, which its device node has as a name.
    pub(super) fn number(&self) -> &str {
        &self.number
    }

    /// Why no machine can have the group, where another device than `own` is in use; with `vfio-pci`,
    /// it is another machine's. A bridge is part of the way only.
    pub(super) fn in_the_way(
        &self,
        host: &HostDevices,
        own: PciAddress,
    ) -> io::Result<Option<String>> {
        for other in self.devices.iter().filter(|other| **other != own) {
            if host.is_bridge(*other)? {
                continue;
            }
            if let Some(driver) = host.driver_of(*other)? {
                let number = &self.number;
                return Ok(Some(format!(
                    "the device {other} of its IOMMU group {number} is used by the driver {driver}"
                )));
            }
        }
        Ok(None)
    }
}
