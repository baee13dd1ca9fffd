//! Network cards that a machine gets as a whole, by VFIO.

mod group;
mod sysfs;
mod undo;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use vc_types::PciAddress;

pub use sysfs::HostDevices;
pub use undo::PassthroughUndo;

use crate::endpoint::{Endpoint, EndpointKind};
use crate::error::{Error, Result, io};
use crate::interface_name::InterfaceName;
use crate::link::{self, LinkKind};
use crate::namespace::Namespace;
use sysfs::VFIO;

/// A planned passing of a network card.
///
/// The card's driver on the host lets go of it, and `vfio-pci` takes it, so that its link vanishes
/// from its namespace: the machine has it. What was found there, addresses above all, was scanned
/// before. [`PassthroughUndo`] gives the card back to its driver, and its link to the namespace with
/// its name and addresses.
///
/// ```no_run
/// use vc_network::{Endpoint, HostDevices, Namespace, Passthrough, Scan};
///
/// let namespace = Namespace::open("/run/netns/web")?;
/// let endpoint = Endpoint::new(Scan::of(&namespace)?.links.remove(0))?;
/// let plan = Passthrough::plan(HostDevices::default(), &namespace, &endpoint)?;
/// // Write `plan.undo()` into the state now: what a killed process did is found then.
/// let undo = plan.undo().clone();
/// let group = plan.bind(100_000)?;
/// println!("QEMU opens {}", group.display());
/// // And when the machine has ended:
/// undo.undo(&namespace)?;
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Debug)]
pub struct Passthrough {
    host: HostDevices,
    undo: PassthroughUndo,
}

impl Passthrough {
    /// Checks that the card can be passed, and changes nothing yet.
    ///
    /// # Errors
    ///
    /// [`Error::CannotPass`] with the reason: a link without a PCI device, a host without an IOMMU or
    /// without `vfio-pci`, a card with virtual functions or with another link, another device of its
    /// IOMMU group that has a driver. [`Error::Io`] when sysfs or the namespace cannot be read.
    pub fn plan(host: HostDevices, namespace: &Namespace, endpoint: &Endpoint) -> Result<Self> {
        let link = endpoint.link();
        let refuse = |device: String, reason: String| Error::CannotPass {
            link: link.name.clone(),
            device,
            reason,
        };
        let address = address_of(&host, endpoint)
            .map_err(|reason| refuse("no PCI device".to_owned(), reason))?;
        let cannot = |reason: String| refuse(address.to_string(), reason);
        let failed = |source| io("look at the device", address)(source);

        let functions = host.number_of_virtual_functions(address).map_err(failed)?;
        if functions > 0 {
            return Err(cannot(format!("it has {functions} virtual functions")));
        }
        if let Some(other) = other_link(&host, namespace, address, endpoint)? {
            let reason = format!("its link {other} would go with it");
            return Err(cannot(reason));
        }
        if !host.has_driver(VFIO) {
            let reason = format!("this host has no driver {VFIO} (modprobe {VFIO})");
            return Err(cannot(reason));
        }
        let group = group::of(&host, address).map_err(failed)?;
        let Some(group) = group else {
            return Err(cannot("this host has no IOMMU that is on".to_owned()));
        };
        if let Some(reason) = group.in_the_way(&host, address).map_err(failed)? {
            return Err(cannot(reason));
        }
        let host = host.with_group(group.number());
        let undo = PassthroughUndo {
            sysfs: host.sysfs().to_owned(),
            group: host.vfio().to_owned(),
            address,
            driver: host.driver_of(address).map_err(failed)?,
            driver_override: host.driver_override(address).map_err(failed)?,
            namespace: namespace.id(),
            link: link.clone(),
        };
        Ok(Self { host, undo })
    }

    /// What will undo it, at whichever step it may be interrupted.
    pub fn undo(&self) -> &PassthroughUndo {
        &self.undo
    }

    /// Where the card is on the host.
    pub fn address(&self) -> PciAddress {
        self.undo.address
    }

    /// Binds the card to `vfio-pci`, and lets the members of the group `user` open its IOMMU group,
    /// whose device is the result.
    ///
    /// # Errors
    ///
    /// [`Error::CannotPass`] when the kernel did not bind it, [`Error::Io`]. The card is its driver's
    /// again then, as far as that can be; its link is given back by [`Passthrough::undo`] alone.
    pub fn bind(&self, user: u32) -> Result<PathBuf> {
        let bound = self.bind_or_leave(user);
        if bound.is_err()
            && let Err(error) = self.undo.rebind(&self.host)
        {
            // The error that led here is the one to report.
            tracing::warn!(device = %self.undo.address, %error, "a card is not its driver's again");
        }
        bound
    }

    fn bind_or_leave(&self, user: u32) -> Result<PathBuf> {
        let address = self.undo.address;
        let failed = |attempt| io(attempt, address);
        self.host
            .set_driver_override(address, VFIO)
            .map_err(failed("choose vfio-pci for the device"))?;
        if self.undo.driver.as_deref() != Some(VFIO) {
            self.host
                .unbind(address)
                .map_err(failed("take from its driver the device"))?;
            self.host
                .probe(address)
                .map_err(failed("find a driver for the device"))?;
        }
        let driver = self
            .host
            .driver_of(address)
            .map_err(failed("look at the device"))?;
        if driver.as_deref() != Some(VFIO) {
            return Err(Error::CannotPass {
                link: self.undo.link.name.clone(),
                device: address.to_string(),
                reason: format!("the kernel did not bind it to {VFIO}"),
            });
        }
        self.host
            .open_group_for(user)
            .map_err(failed("give to the machine the IOMMU group of"))
    }
}

/// Another link of the card, in the namespace or in the network of the host.
fn other_link(
    host: &HostDevices,
    namespace: &Namespace,
    address: PciAddress,
    endpoint: &Endpoint,
) -> Result<Option<InterfaceName>> {
    let link = endpoint.link();
    let of_host = host
        .other_link_of(address, &link.name, endpoint.mac())
        .map_err(io("look for links of the device", address))?;
    if of_host.is_some() {
        return Ok(of_host);
    }
    let mut netlink = namespace.netlink()?;
    let links = link::list(&mut netlink).map_err(io("look for links of the device", address))?;
    let name = address.to_string();
    let beside = links.into_iter().find(|other| {
        let own = matches!(&other.kind, LinkKind::Physical { device: Some(device), .. } if *device == name);
        own && other.index != link.index
    });
    Ok(beside.map(|other| other.name))
}

/// The card of a link, or why it has none.
fn address_of(host: &HostDevices, endpoint: &Endpoint) -> std::result::Result<PciAddress, String> {
    let EndpointKind::Physical { bus, device } = endpoint.kind() else {
        return Err("the link is none of a card".to_owned());
    };
    match (bus.as_deref(), device) {
        (Some("pci"), Some(device)) => device.parse().map_err(|error| format!("{error}")),
        (Some(bus), _) => Err(format!("its device is on the bus {bus}")),
        // Kernels before 5.14 do not say it of a link.
        _ => host
            .card_of(&endpoint.link().name, endpoint.mac())
            .ok_or_else(|| "sysfs knows no PCI device of the link".to_owned()),
    }
}
