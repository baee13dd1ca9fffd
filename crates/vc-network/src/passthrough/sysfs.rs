//! What sysfs says of devices, and what is written there.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vc_types::PciAddress;

use crate::interface_name::InterfaceName;
use crate::mac::MacAddress;

/// The driver that gives devices to machines.
pub(super) const VFIO: &str = "vfio-pci";

/// What sysfs says where no driver was chosen for a device.
const NO_OVERRIDE: &str = "(null)";

/// Classes of devices that lead to others.
const BRIDGES: &str = "0x06";

/// Owner and group of a device's node read and write it.
const GROUP_MODE: u32 = 0o660;

/// The devices of a host: its sysfs, and the device nodes of VFIO.
///
/// ```
/// use vc_network::HostDevices;
///
/// let made_up = HostDevices::at("/tmp/sys", "/tmp/vfio");
/// assert_eq!(made_up.sysfs(), std::path::Path::new("/tmp/sys"));
/// ```
#[derive(Clone)]
pub struct HostDevices {
    sysfs: PathBuf,
    vfio: PathBuf,
    kernel: Arc<dyn Attributes>,
}

/// Who takes what is written to the files of sysfs.
pub(super) trait Attributes: Send + Sync {
    fn write(&self, file: &Path, value: &str) -> io::Result<()>;
}

/// The kernel.
struct Kernel;

impl Attributes for Kernel {
    fn write(&self, file: &Path, value: &str) -> io::Result<()> {
        // A file that is missing is not to be made.
        let mut file = fs::File::options().write(true).open(file)?;
        io::Write::write_all(&mut file, value.as_bytes())
    }
}

impl Default for HostDevices {
    /// `/sys` and `/dev/vfio`.
    fn default() -> Self {
        Self::at("/sys", "/dev/vfio")
    }
}

impl fmt::Debug for HostDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sysfs, vfio, .. } = self;
        f.debug_struct("HostDevices")
            .field("sysfs", sysfs)
            .field("vfio", vfio)
            .finish_non_exhaustive()
    }
}

impl HostDevices {
    /// Those of other directories.
    pub fn at(sysfs: impl Into<PathBuf>, vfio: impl Into<PathBuf>) -> Self {
        Self {
            sysfs: sysfs.into(),
            vfio: vfio.into(),
            kernel: Arc::new(Kernel),
        }
    }

    #[cfg(test)]
    pub(super) fn with(mut self, kernel: Arc<dyn Attributes>) -> Self {
        self.kernel = kernel;
        self
    }

    /// Where sysfs is.
    pub fn sysfs(&self) -> &Path {
        &self.sysfs
    }

    /// Where the device nodes of VFIO are, or that of one group.
    pub(super) fn vfio(&self) -> &Path {
        &self.vfio
    }

    /// The same, whose device node of VFIO is that of one group.
    pub(super) fn with_group(mut self, number: &str) -> Self {
        self.vfio.push(number);
        self
    }

    fn device(&self, address: PciAddress) -> PathBuf {
        self.sysfs.join("bus/pci/devices").join(address.to_string())
    }

    pub(super) fn has_device(&self, address: PciAddress) -> bool {
        self.device(address).exists()
    }

    pub(super) fn has_driver(&self, driver: &str) -> bool {
        self.sysfs.join("bus/pci/drivers").join(driver).exists()
    }

    /// The driver that has a device.
    pub(super) fn driver_of(&self, address: PciAddress) -> io::Result<Option<String>> {
        target_name(&self.device(address).join("driver"))
    }

    /// The IOMMU group of a device.
    pub(super) fn group_of(&self, address: PciAddress) -> io::Result<Option<String>> {
        target_name(&self.device(address).join("iommu_group"))
    }

    pub(super) fn devices_of_group(&self, number: &str) -> io::Result<Vec<PciAddress>> {
        let directory = self.sysfs.join("kernel/iommu_groups").join(number);
        let mut devices = Vec::new();
        for entry in fs::read_dir(directory.join("devices"))? {
            // Others than those of PCI are none that a driver of PCI has.
            if let Some(address) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            {
                devices.push(address);
            }
        }
        devices.sort();
        Ok(devices)
    }

    pub(super) fn is_bridge(&self, address: PciAddress) -> io::Result<bool> {
        let class = fs::read_to_string(self.device(address).join("class"))?;
        Ok(class.starts_with(BRIDGES))
    }

    pub(super) fn number_of_virtual_functions(&self, address: PciAddress) -> io::Result<u32> {
        match fs::read_to_string(self.device(address).join("sriov_numvfs")) {
            // It can have none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            text => text?.trim().parse().map_err(io::Error::other),
        }
    }

    /// The driver that was chosen for a device, if any was.
    pub(super) fn driver_override(&self, address: PciAddress) -> io::Result<Option<String>> {
        let text = fs::read_to_string(self.device(address).join("driver_override"))?;
        let text = text.trim();
        let chosen = !text.is_empty() && text != NO_OVERRIDE;
        Ok(chosen.then(|| text.to_owned()))
    }

    /// Chooses the driver of a device; an empty one is none.
    pub(super) fn set_driver_override(&self, address: PciAddress, driver: &str) -> io::Result<()> {
        let file = self.device(address).join("driver_override");
        self.kernel.write(&file, &format!("{driver}\n"))
    }

    /// Takes a device from its driver, if it has one.
    pub(super) fn unbind(&self, address: PciAddress) -> io::Result<()> {
        if self.driver_of(address)?.is_none() {
            return Ok(());
        }
        let file = self.device(address).join("driver/unbind");
        match self.kernel.write(&file, &address.to_string()) {
            // Somebody else was faster.
            Err(_) if self.driver_of(address)?.is_none() => Ok(()),
            written => written,
        }
    }

    /// Lets the kernel find a driver for a device: that which was chosen, if one was.
    pub(super) fn probe(&self, address: PciAddress) -> io::Result<()> {
        let file = self.sysfs.join("bus/pci/drivers_probe");
        self.kernel.write(&file, &address.to_string())
    }

    /// Gives a device to a driver.
    pub(super) fn bind(&self, address: PciAddress, driver: &str) -> io::Result<()> {
        let file = self.sysfs.join("bus/pci/drivers").join(driver).join("bind");
        self.kernel.write(&file, &address.to_string())
    }

    /// The links of a device that are in the network of this sysfs.
    pub(super) fn links_of(&self, address: PciAddress) -> io::Result<Vec<InterfaceName>> {
        let entries = match fs::read_dir(self.device(address).join("net")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            InterfaceName::new(name).ok()
        };
        Ok(entries.filter_map(name).collect())
    }

    /// One of them that is not this link. One of its name may be in each network.
    pub(super) fn other_link_of(
        &self,
        address: PciAddress,
        link: &InterfaceName,
        mac: MacAddress,
    ) -> io::Result<Option<InterfaceName>> {
        let links = self.device(address).join("net");
        let has_its_mac = |name: &InterfaceName| {
            let text = fs::read_to_string(links.join(name.as_str()).join("address"));
            text.is_ok_and(|text| text.trim() == mac.to_string())
        };
        let is_other = |name: &InterfaceName| name != link || !has_its_mac(name);
        Ok(self.links_of(address)?.into_iter().find(is_other))
    }

    /// The PCI device of a link by its name and hardware address, where this sysfs shows it.
    pub(super) fn card_of(&self, link: &InterfaceName, mac: MacAddress) -> Option<PciAddress> {
        let directory = self.sysfs.join("class/net").join(link.as_str());
        let address = fs::read_to_string(directory.join("address")).ok()?;
        // One of this name may be in each network.
        if address.trim() != mac.to_string() {
            return None;
        }
        let device = fs::canonicalize(directory.join("device")).ok()?;
        device.file_name()?.to_str()?.parse().ok()
    }

    /// Lets the members of a group of users open the device node of the IOMMU group, which is the
    /// result.
    pub(super) fn open_group_for(&self, group: u32) -> io::Result<PathBuf> {
        chown(&self.vfio, None, Some(group))?;
        fs::set_permissions(&self.vfio, fs::Permissions::from_mode(GROUP_MODE))?;
        Ok(self.vfio.clone())
    }

    /// Takes that back, where the node is still there.
    pub(super) fn close_group(&self) -> io::Result<()> {
        let closed = chown(&self.vfio, None, Some(0))
            .and_then(|()| fs::set_permissions(&self.vfio, fs::Permissions::from_mode(OWNER_MODE)));
        match closed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            closed => closed,
        }
    }
}

/// Only its owner reads and writes it, as the kernel makes it.
const OWNER_MODE: u32 = 0o600;

/// The last part of where a link of sysfs leads.
fn target_name(link: &Path) -> io::Result<Option<String>> {
    match fs::read_link(link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        target => {
            let target = target?;
            let name = target.file_name().and_then(|name| name.to_str());
            Ok(name.map(str::to_owned))
        }
    }
}
