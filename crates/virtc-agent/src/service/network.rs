//! The network's calls, of both services: what they do blocks, so it is done on other threads, and
//! to its end.

use std::sync::Arc;

use agent_protocol::agent::{
    AddARPNeighborsRequest, GetIPTablesRequest, GetIPTablesResponse, Interfaces, Routes,
    SetIPTablesRequest, SetIPTablesResponse, UpdateInterfaceRequest, UpdateRoutesRequest,
};
use agent_protocol::types::{Interface, Route};
use agent_protocol::virtc::ConfigureNetworkRequest;

use crate::error::Result;
use crate::network::{self, iptables};
use crate::sandbox::{Sandbox, blocking, uninterrupted};

/// `ConfigureNetwork`.
pub(super) async fn configure(
    sandbox: &Arc<Sandbox>,
    request: ConfigureNetworkRequest,
) -> Result<()> {
    let (network, modules) = (sandbox.network.clone(), sandbox.modules.clone());
    blocking(move || network.configure(&request, &modules)).await
}

/// `UpdateInterface`, which is answered with what was asked for.
pub(super) async fn update_interface(
    sandbox: &Arc<Sandbox>,
    request: UpdateInterfaceRequest,
) -> Result<Interface> {
    let (network, modules) = (sandbox.network.clone(), sandbox.modules.clone());
    let interface = request.interface.unwrap_or_default();
    blocking(move || {
        network.update_interface(&interface, &modules)?;
        Ok(interface)
    })
    .await
}

/// `UpdateRoutes`.
pub(super) async fn update_routes(
    sandbox: &Arc<Sandbox>,
    request: UpdateRoutesRequest,
) -> Result<Routes> {
    let network = sandbox.network.clone();
    let wanted = request.routes.unwrap_or_default().Routes;
    Ok(routes(
        blocking(move || network.update_routes(&wanted)).await?,
    ))
}

/// `ListInterfaces`.
pub(super) async fn list_interfaces() -> Result<Interfaces> {
    Ok(Interfaces {
        Interfaces: blocking(network::list_interfaces).await?,
        ..Interfaces::default()
    })
}

/// `ListRoutes`.
pub(super) async fn list_routes() -> Result<Routes> {
    Ok(routes(blocking(network::list_routes).await?))
}

fn routes(routes: Vec<Route>) -> Routes {
    Routes {
        Routes: routes,
        ..Routes::default()
    }
}

/// `AddARPNeighbors`.
pub(super) async fn add_neighbours(
    sandbox: &Arc<Sandbox>,
    request: AddARPNeighborsRequest,
) -> Result<()> {
    let network = sandbox.network.clone();
    let wanted = request.neighbors.unwrap_or_default();
    blocking(move || network.add_neighbours(&wanted)).await
}

/// `GetIPTables`.
pub(super) async fn get_ip_tables(
    sandbox: &Arc<Sandbox>,
    request: &GetIPTablesRequest,
) -> Result<GetIPTablesResponse> {
    let (reaper, ipv6) = (sandbox.reaper.clone(), request.is_ipv6);
    let data = uninterrupted(async move { iptables::save(&reaper, ipv6).await }).await?;
    Ok(GetIPTablesResponse {
        data,
        ..GetIPTablesResponse::default()
    })
}

/// `SetIPTables`.
pub(super) async fn set_ip_tables(
    sandbox: &Arc<Sandbox>,
    request: SetIPTablesRequest,
) -> Result<SetIPTablesResponse> {
    let reaper = sandbox.reaper.clone();
    let restored =
        uninterrupted(
            async move { iptables::restore(&reaper, request.is_ipv6, &request.data).await },
        );
    Ok(SetIPTablesResponse {
        data: restored.await?,
        ..SetIPTablesResponse::default()
    })
}
