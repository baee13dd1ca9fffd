use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vc_types::PciAddress;

use super::sysfs::{HostDevices, VFIO};
use crate::error::{Error, Result, io};
use crate::interface_name::InterfaceName;
use crate::link::{self, Link, LinkKind};
use crate::namespace::{Namespace, NamespaceId};

/// The network in which the kernel puts a link that a driver makes.
const FIRST_NETWORK: &str = "/proc/1/ns/net";

/// What gives a passed card back.
///
/// It is plain data for a state file: whoever reads it can undo what a killed process did, at
/// whichever step that was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassthroughUndo {
    pub(super) sysfs: PathBuf,
    /// The device node of its IOMMU group, which is there while a device of it is passed.
    pub(super) group: PathBuf,
    pub(super) address: PciAddress,
    /// That of the host which had it.
    pub(super) driver: Option<String>,
    pub(super) driver_override: Option<String>,
    pub(super) namespace: NamespaceId,
    /// As it was.
    pub(super) link: Link,
}

impl PassthroughUndo {
    /// Gives the card back to the driver that had it, and its link to the namespace with its name,
    /// MTU and addresses, up if it was. Routes that somebody had set are not set again. Where the
    /// namespace is another one by now, the link stays in the host's network, as that of a namespace
    /// that vanishes does. The machine must have ended.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when something stays. It can be called again then.
    pub fn undo(&self, namespace: &Namespace) -> Result<()> {
        self.undo_in(Some(namespace))
    }

    /// The same, by a path at which the namespace may not be any more.
    ///
    /// # Errors
    ///
    /// Those of [`PassthroughUndo::undo`].
    pub fn undo_at(&self, path: impl AsRef<Path>) -> Result<()> {
        match Namespace::open_any(path.as_ref().to_owned()) {
            Ok(namespace) => self.undo_in(Some(&namespace)),
            Err(Error::NamespaceGone { .. } | Error::NotANetworkNamespace { .. }) => {
                self.undo_in(None)
            }
            Err(error) => Err(error),
        }
    }

    fn undo_in(&self, namespace: Option<&Namespace>) -> Result<()> {
        let host = HostDevices::at(&self.sysfs, &self.group);
        self.rebind(&host)?;
        match Namespace::open_any(FIRST_NETWORK.into()) {
            Ok(first) => self.give_link_back(&host, &first, namespace),
            Err(error) => {
                tracing::warn!(link = %self.link.name, %error, "a link stays where it is");
                Ok(())
            }
        }
    }

    /// Gives the card back to the driver that had it.
    pub(super) fn rebind(&self, host: &HostDevices) -> Result<()> {
        let address = self.address;
        if !host.has_device(address) {
            return Ok(());
        }
        let failed = |attempt| io(attempt, address);
        let chosen = self.driver_override.as_deref().unwrap_or_default();
        host.set_driver_override(address, chosen)
            .map_err(failed("choose the former driver for the device"))?;
        let now = || {
            host.driver_of(address)
                .map_err(failed("look at the device"))
        };
        if now()? == self.driver {
            return Ok(());
        }
        if now()?.as_deref() == Some(VFIO) {
            host.unbind(address)
                .map_err(failed("take from vfio-pci the device"))?;
        }
        host.close_group()
            .map_err(failed("take back the IOMMU group of"))?;
        let Some(driver) = &self.driver else {
            return Ok(());
        };
        let bound = host.bind(address, driver);
        if now()?.as_ref() == Some(driver) {
            return Ok(());
        }
        bound.map_err(failed("give back to its driver the device"))?;
        Err(Error::CannotPass {
            link: self.link.name.clone(),
            device: address.to_string(),
            reason: format!("the kernel did not bind it to {driver} again"),
        })
    }

    /// Moves the card's link from the network in which the kernel has made it.
    pub(super) fn give_link_back(
        &self,
        host: &HostDevices,
        first: &Namespace,
        namespace: Option<&Namespace>,
    ) -> Result<()> {
        let name = &self.link.name;
        let failed = |attempt| io(attempt, name);
        let Some(namespace) = namespace.filter(|now| now.id() == self.namespace) else {
            return Ok(());
        };
        let mut netlink = first.netlink()?;
        let links = host.links_of(self.address);
        for made in links.map_err(failed("look for the link"))? {
            let found = link::by_name(&mut netlink, &made);
            // Another one may have the name by now.
            if let Some(found) = found.map_err(failed("look for the link"))?
                && self.is_of_card(&found)
            {
                link::move_to(&mut netlink, found.index, namespace.as_fd(), name)
                    .map_err(failed("give back the link"))?;
            }
        }
        self.restore(namespace, name)
    }

    /// By what the kernel says of its device; older kernels say nothing, and its driver gives it its
    /// own hardware address.
    fn is_of_card(&self, found: &Link) -> bool {
        match &found.kind {
            LinkKind::Physical {
                device: Some(device),
                ..
            } => *device == self.address.to_string(),
            _ => found.mac == self.link.mac,
        }
    }

    fn restore(&self, namespace: &Namespace, name: &InterfaceName) -> Result<()> {
        let failed = |attempt| io(attempt, name);
        let mut netlink = namespace.netlink()?;
        let found = link::by_name(&mut netlink, name).map_err(failed("look for the link"))?;
        let Some(found) = found.filter(|found| self.is_of_card(found)) else {
            return Ok(());
        };
        for address in self.link.addresses.iter().filter(|one| one.peer.is_none()) {
            let added = link::add_address(&mut netlink, found.index, address.cidr);
            match address.cidr.address() {
                // A kernel may have switched it off for the link.
                IpAddr::V6(_) if added.is_err() => {
                    tracing::warn!(link = %name, address = %address.cidr, "it is not given back");
                }
                _ => added.map_err(failed("give its address back to the link"))?,
            }
        }
        if self.link.up {
            link::raise(&mut netlink, found.index, Some(self.link.mtu))
                .map_err(failed("set up again the link"))?;
        }
        Ok(())
    }
}
