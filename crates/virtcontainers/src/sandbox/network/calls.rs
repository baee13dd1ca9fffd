//! The network of a running sandbox: the calls and their types.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vc_agent_client::Code;
use vc_agent_client::network::{GuestInterface, GuestRoute, IpPrefix, IpVersion, RouteConfig};

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
    /// Adds an interface to a running sandbox.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`]: a link that appears in the sandbox's network namespace, and has an
    /// address, comes to the guest by itself.
    pub async fn add_interface(&self, interface: &Interface) -> Result<Interface> {
        self.by_the_namespace(&format!("adding the interface {}", interface.name))
    }

    /// Removes an interface, which is named by its hardware address.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`]: one whose link is deleted from the sandbox's network namespace goes by
    /// itself.
    pub async fn remove_interface(&self, interface: &Interface) -> Result<()> {
        self.by_the_namespace(&format!("removing the interface {}", interface.name))
    }

    /// The interfaces as the guest has them.
    ///
    /// # Errors
    ///
    /// [`Error::Agent`], also when what the guest says cannot be.
    pub async fn list_interfaces(&self) -> Result<Vec<Interface>> {
        self.status()?;
        let guest = &self.0.guest;
        let asked = async { Ok(guest.agent.list_interfaces().await?) };
        let interfaces = guest.while_it_runs(asked).await?.into_iter();
        Ok(interfaces.map(Interface::from).collect())
    }

    /// Replaces the routes, and gives those that the guest has then. They hold until the network
    /// namespace of the sandbox changes: its routes are the guest's again then.
    ///
    /// # Errors
    ///
    /// [`Error::Agent`] when the guest does not take one of them.
    pub async fn update_routes(&self, routes: &[Route]) -> Result<Vec<Route>> {
        self.status()?;
        let wanted: Vec<RouteConfig> = routes.iter().map(RouteConfig::from).collect();
        let guest = &self.0.guest;
        let set = async { Ok(guest.agent.update_routes(&wanted).await?) };
        let routes = guest.while_it_runs(set).await?.into_iter();
        Ok(routes.map(Route::from).collect())
    }

    /// The routes as the guest has them.
    ///
    /// # Errors
    ///
    /// As [`SandboxHandle::list_interfaces`].
    pub async fn list_routes(&self) -> Result<Vec<Route>> {
        self.status()?;
        let guest = &self.0.guest;
        let asked = async { Ok(guest.agent.list_routes().await?) };
        let routes = guest.while_it_runs(asked).await?.into_iter();
        Ok(routes.map(Route::from).collect())
    }

    /// The rules of the guest's packet filter, as `iptables-save` prints them.
    ///
    /// ```no_run
    /// # async fn example(sandbox: virtcontainers::SandboxHandle) -> virtcontainers::Result<()> {
    /// use virtcontainers::{Error, IpVersion};
    ///
    /// match sandbox.get_iptables(IpVersion::V4).await {
    ///     Ok(rules) => println!("{rules}"),
    ///     Err(Error::Unsupported { what }) => println!("there is no {what}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a guest without the programs of iptables, which is what the guest of
    /// this project is; [`Error::Agent`], also when what the guest says cannot be.
    pub async fn get_iptables(&self, version: IpVersion) -> Result<String> {
        self.status()?;
        let guest = &self.0.guest;
        let asked = async { iptables(version, guest.agent.get_iptables(version).await) };
        guest.while_it_runs(asked).await
    }

    /// Sets the rules of the guest's packet filter, as `iptables-restore` reads them, and gives what
    /// that says.
    ///
    /// # Errors
    ///
    /// As [`SandboxHandle::get_iptables`], and [`Error::Agent`] for rules that the guest does not take.
    pub async fn set_iptables(&self, version: IpVersion, rules: &str) -> Result<String> {
        self.status()?;
        let guest = &self.0.guest;
        let set = async { iptables(version, guest.agent.set_iptables(version, rules).await) };
        guest.while_it_runs(set).await
    }

    fn by_the_namespace<T>(&self, what: &str) -> Result<T> {
        self.status()?;
        Err(Error::Unsupported {
            what: format!("{what} (the guest follows the network namespace of its sandbox)"),
        })
    }
}

fn iptables(version: IpVersion, answer: vc_agent_client::Result<String>) -> Result<String> {
    answer.map_err(|error| match error.code() {
        Some(Code::Unimplemented) => Error::Unsupported {
            what: format!(
                "{} in this guest",
                match version {
                    IpVersion::V4 => "iptables",
                    IpVersion::V6 => "ip6tables",
                }
            ),
        },
        _ => error.into(),
    })
}

impl From<IpPrefix> for Address {
    fn from(prefix: IpPrefix) -> Self {
        Self {
            ip: prefix.address,
            prefix: prefix.length,
        }
    }
}

impl From<GuestInterface> for Interface {
    fn from(interface: GuestInterface) -> Self {
        Self {
            name: interface.name,
            mac: interface.mac.unwrap_or_default(),
            mtu: interface.mtu,
            addresses: interface.addresses.into_iter().map(Address::from).collect(),
        }
    }
}

impl From<GuestRoute> for Route {
    fn from(route: GuestRoute) -> Self {
        Self {
            destination: route.destination.map(Address::from),
            gateway: route.gateway,
            interface: route.device,
        }
    }
}

impl From<&Route> for RouteConfig {
    fn from(route: &Route) -> Self {
        /// The scope of what is reached without a router, from linux/rtnetlink.h.
        const LINK: u8 = 253;
        let is_v6 = |ip: &IpAddr| ip.is_ipv6();
        Self {
            destination: route.destination.map(|to| IpPrefix {
                address: to.ip,
                length: to.prefix,
            }),
            ipv6: route.destination.is_some_and(|to| to.ip.is_ipv6())
                || route.gateway.as_ref().is_some_and(is_v6),
            gateway: route.gateway,
            on_link: false,
            source: None,
            scope: match (route.gateway, route.destination) {
                (None, Some(to)) if to.ip.is_ipv4() => LINK,
                _ => 0,
            },
            mtu: None,
            metric: None,
            device: route.interface.clone(),
        }
    }
}
