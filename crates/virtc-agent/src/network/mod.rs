//! The guest's network, which all its containers use: interfaces, addresses, routes, neighbours.
//!
//! The host describes it, in one call of our own service ([`configure`]) or in the calls of Kata's
//! ([`kata`]). Both are checked and made into the same objects, and the same code brings them into
//! the kernel. Everything here blocks, and is called on threads that may.

mod addresses;
mod configure;
mod interface;
pub(crate) mod iptables;
mod kata;
mod link;
mod mac;
mod names;
mod neighbours;
mod netlink;
mod pci;
mod prefix;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_protocol::agent::ARPNeighbors;
use agent_protocol::types;
use agent_protocol::virtc::ConfigureNetworkRequest;

use crate::error::Result;
use crate::modules::Modules;
use configure::Wanted;
use neighbours::Neighbour;
use netlink::Netlink;
use routes::Route;

/// The driver of the machine's network devices.
pub(crate) const DRIVER_MODULE: &str = "virtio_net";

/// What a virtio bus calls such a device, whoever made it.
const DEVICE_ALIAS: &str = "virtio:d00000001v";

/// The guest's network, and what of it the host has asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Network {
    /// Also makes one change after the other.
    configured: Arc<Mutex<Configured>>,
}

/// What was set for the host, and so may be taken back for it.
#[derive(Debug, Default)]
struct Configured {
    /// The kernel's indexes of the interfaces.
    interfaces: Vec<u32>,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
}

impl Network {
    /// Makes the network what the host wants it to be.
    pub(crate) fn configure(
        &self,
        request: &ConfigureNetworkRequest,
        modules: &Modules,
    ) -> Result<()> {
        let wanted = Wanted::parse(request)?;
        modules.require(DRIVER_MODULE)?;
        let mut configured = self.configured();
        wanted.apply(&mut Netlink::open()?, &mut configured)
    }

    /// Makes one interface what the host wants it to be.
    pub(crate) fn update_interface(
        &self,
        message: &types::Interface,
        modules: &Modules,
    ) -> Result<()> {
        let interface = kata::interface(message)?;
        modules.require(DRIVER_MODULE)?;
        let _one_at_a_time = self.configured();
        configure::set_interfaces(&mut Netlink::open()?, &[interface]).map(drop)
    }

    /// Sets these routes in the place of those that were set before, and says which there are.
    pub(crate) fn update_routes(&self, messages: &[types::Route]) -> Result<Vec<types::Route>> {
        let wanted = messages.iter().map(kata::route).collect::<Result<_>>()?;
        let mut netlink = Netlink::open()?;
        routes::replace(&mut netlink, &mut self.configured().routes, wanted)?;
        Ok(kata::route_messages(&routes::list(&mut netlink)?))
    }

    /// Adds neighbours to those that are there.
    pub(crate) fn add_neighbours(&self, message: &ARPNeighbors) -> Result<()> {
        let wanted = kata::neighbours(message)?;
        let mut configured = self.configured();
        neighbours::add(&mut Netlink::open()?, &mut configured.neighbours, wanted)
    }

    fn configured(&self) -> MutexGuard<'_, Configured> {
        self.configured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// All interfaces with their addresses, the loopback included.
pub(crate) fn list_interfaces() -> Result<Vec<types::Interface>> {
    let mut netlink = Netlink::open()?;
    let links = link::list(&mut netlink)?;
    let assigned = addresses::list(&mut netlink)?;
    let messages = links.iter();
    Ok(messages
        .map(|link| kata::interface_message(link, &assigned))
        .collect())
}

/// The unicast routes of the main table, those of the kernel included.
pub(crate) fn list_routes() -> Result<Vec<types::Route>> {
    let found = routes::list(&mut Netlink::open()?)?;
    Ok(kata::route_messages(&found))
}

/// Whether the machine has started with a network device, so that its driver will be asked for.
pub(crate) fn has_device() -> bool {
    let devices = std::fs::read_dir("/sys/bus/virtio/devices");
    devices.into_iter().flatten().flatten().any(|device| {
        std::fs::read_to_string(device.path().join("modalias"))
            .is_ok_and(|alias| alias.starts_with(DEVICE_ALIAS))
    })
}
