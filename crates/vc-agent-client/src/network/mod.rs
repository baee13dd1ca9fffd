//! The guest's network: what the host asks for, and what a guest says it has.
//!
//! The guest is not trusted: a list of it is cut at a largest length, and what of it is no address,
//! no name or no MAC is an error.

mod answer;
mod iptables;
mod wanted;

pub use answer::{GuestInterface, GuestRoute};
pub use iptables::IpVersion;
pub use wanted::{GuestNetwork, InterfaceConfig, IpPrefix, NeighbourConfig, RouteConfig};

use agent_protocol::agent::{
    ListInterfacesRequest, ListRoutesRequest, Routes, UpdateInterfaceRequest, UpdateRoutesRequest,
};
use protobuf::MessageField;

use crate::client::AgentClient;
use crate::error::Result;

impl AgentClient {
    /// Makes the guest's network what `network` says, in one call of our own agent: interfaces are
    /// found, renamed, addressed and set up, then routes and neighbours are set. Routes and
    /// neighbours of an earlier call that are not named any more are taken back.
    ///
    /// ```no_run
    /// use vc_agent_client::network::{GuestNetwork, InterfaceConfig, IpPrefix, RouteConfig};
    ///
    /// # async fn example(agent: vc_agent_client::AgentClient) -> vc_agent_client::Result<()> {
    /// let mut eth0 = InterfaceConfig::new("eth0");
    /// eth0.pci_path = "13.0".into();
    /// eth0.addresses = vec![IpPrefix { address: [10, 0, 0, 2].into(), length: 24 }];
    /// let default = RouteConfig::default_by([10, 0, 0, 1].into(), "eth0");
    /// let network = GuestNetwork {
    ///     interfaces: vec![eth0],
    ///     routes: vec![default],
    ///     neighbours: Vec::new(),
    /// };
    /// agent.configure_network(&network).await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As every call. The agent's words name the interface, route or neighbour. The code is
    /// `Unimplemented` for an agent that does not have the call.
    pub async fn configure_network(&self, network: &GuestNetwork) -> Result<()> {
        let request = network.message();
        let call = self.guest.configure_network(self.long(), &request);
        self.much("configure the guest's network", call).await?;
        Ok(())
    }

    /// Makes one interface what `interface` says, by the call that Kata's agent has too.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn update_interface(&self, interface: &InterfaceConfig) -> Result<()> {
        let request = UpdateInterfaceRequest {
            interface: MessageField::some(interface.kata_message()),
            ..UpdateInterfaceRequest::default()
        };
        let call = self.agent.update_interface(self.long(), &request);
        self.much("update the guest's interface", call).await?;
        Ok(())
    }

    /// Sets these routes in the place of those that were set before, by the call that Kata's agent
    /// has too, and gives the routes that there are then. That call knows no metrics.
    ///
    /// # Errors
    ///
    /// As every call, and [`Error::BadAnswer`](crate::Error::BadAnswer).
    pub async fn update_routes(&self, routes: &[RouteConfig]) -> Result<Vec<GuestRoute>> {
        let request = UpdateRoutesRequest {
            routes: MessageField::some(Routes {
                Routes: routes.iter().map(RouteConfig::kata_message).collect(),
                ..Routes::default()
            }),
            ..UpdateRoutesRequest::default()
        };
        let call = "update the guest's routes";
        let answer = self.agent.update_routes(self.long(), &request);
        answer::routes(call, self.much(call, answer).await?)
    }

    /// The guest's interfaces, the loopback included.
    ///
    /// # Errors
    ///
    /// As every call, and [`Error::BadAnswer`](crate::Error::BadAnswer).
    pub async fn list_interfaces(&self) -> Result<Vec<GuestInterface>> {
        let call = "list the guest's interfaces";
        let request = ListInterfacesRequest::default();
        let answer = self.agent.list_interfaces(self.short(), &request);
        answer::interfaces(call, self.little(call, answer).await?)
    }

    /// The guest's routes, those of its kernel included.
    ///
    /// # Errors
    ///
    /// As every call, and [`Error::BadAnswer`](crate::Error::BadAnswer).
    pub async fn list_routes(&self) -> Result<Vec<GuestRoute>> {
        let call = "list the guest's routes";
        let request = ListRoutesRequest::default();
        let answer = self.agent.list_routes(self.short(), &request);
        answer::routes(call, self.little(call, answer).await?)
    }
}
