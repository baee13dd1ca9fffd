//! The network of a running sandbox: the calls and their types. A sandbox has none yet.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::super::handle::SandboxHandle;
use crate::error::{Error, Result};

/// An address with the length of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Bits of the network, 0 to 32 or 128.
    pub prefix: u8,
}

/// One interface of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name in the guest.
    pub name: String,
    /// Its hardware address, six bytes.
    pub mac: [u8; 6],
    /// Bytes of its largest packet.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<Address>,
}

/// One route of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads; everywhere where there is none.
    pub destination: Option<Address>,
    /// The next host on the way.
    pub gateway: Option<IpAddr>,
    /// The interface that it uses.
    pub interface: String,
}

impl SandboxHandle {
    /// Adds an interface of the sandbox's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`]: a sandbox has no network yet.
    pub async fn add_interface(&self, interface: &Interface) -> Result<Interface> {
        self.no_network(&format!("adding the interface {}", interface.name))
    }

    /// Removes an interface, which is named by its hardware address.
    ///
    /// # Errors
    ///
    /// As [`SandboxHandle::add_interface`].
    pub async fn remove_interface(&self, interface: &Interface) -> Result<()> {
        self.no_network(&format!("removing the interface {}", interface.name))
    }

    /// The interfaces as the guest has them.
    ///
    /// # Errors
    ///
    /// As [`SandboxHandle::add_interface`].
    pub async fn list_interfaces(&self) -> Result<Vec<Interface>> {
        self.no_network("listing interfaces")
    }

    /// Replaces the routes, and gives those that the guest has then.
    ///
    /// # Errors
    ///
    /// As [`SandboxHandle::add_interface`].
    pub async fn update_routes(&self, _routes: &[Route]) -> Result<Vec<Route>> {
        self.no_network("replacing routes")
    }

    /// The routes as the guest has them.
    ///
    /// # Errors
    ///
    /// As [`SandboxHandle::add_interface`].
    pub async fn list_routes(&self) -> Result<Vec<Route>> {
        self.no_network("listing routes")
    }

    fn no_network<T>(&self, what: &str) -> Result<T> {
        self.status()?;
        Err(Error::Unsupported {
            what: format!("{what}, as long as sandboxes have no network,"),
        })
    }
}
