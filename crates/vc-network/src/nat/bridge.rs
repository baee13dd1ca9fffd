//! The bridge in the host's namespace, and the veths from it into the leases' namespaces.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use super::state::State;
use crate::address::Cidr;
use crate::error::{Result, io};
use crate::interface_name::InterfaceName;
use crate::link::{self, LinkKind};
use crate::namespace::Namespace;
use crate::neighbour;
use crate::netlink::Netlink;
use crate::route;

/// The machine's link in its namespace.
const INSIDE: &str = "eth0";

/// Which of the host's own addresses and routes has a subnet, if one has.
pub(super) fn taken_by(netlink: &mut Netlink, subnet: Cidr) -> Result<Option<String>> {
    let addresses = link::addresses_of(netlink).map_err(io("list the addresses of", "the host"))?;
    for address in addresses.values().flatten() {
        if subnet.overlaps(address.cidr) {
            return Ok(Some(format!("the address {}", address.cidr)));
        }
    }
    let routes = route::list(netlink).map_err(io("list the routes of", "the host"))?;
    for route in routes.set.into_iter().flatten() {
        // The way to everything else leaves what is nearer free.
        if route.destination.prefix() != 0 && subnet.overlaps(route.destination) {
            return Ok(Some(format!("the route to {}", route.destination)));
        }
    }
    Ok(None)
}

/// Makes the bridge where it is missing, with the gateway's address and up.
pub(super) fn ensure(host: &Namespace, state: &State) -> Result<()> {
    let name = state.config.bridge();
    let mut netlink = host.netlink()?;
    let failed = |attempt| io(attempt, name);
    let find =
        |netlink: &mut Netlink| link::by_name(netlink, name).map_err(failed("look for the bridge"));
    let bridge = match find(&mut netlink)? {
        Some(bridge) => bridge,
        None => {
            let mac = state.config.mac(state.config.gateway())?;
            link::make_bridge(&mut netlink, name, mac).map_err(failed("make the bridge"))?;
            find(&mut netlink)?.ok_or_else(|| {
                failed("make the bridge")(io::Error::from(io::ErrorKind::NotFound))
            })?
        }
    };
    // The host says nothing on it but what the machines need.
    let subnet6 = state.subnet6();
    let unused = if subnet6.is_some() { "0" } else { "1" };
    set(host, name, "ipv6", "disable_ipv6", unused)?;
    set(host, name, "ipv6", "accept_ra", "0")?;
    link::silence_ipv6(&mut netlink, bridge.index).map_err(failed("set up the bridge"))?;
    if let Some(subnet) = subnet6 {
        let alone = Cidr::new(subnet.loopback().into(), 128)?;
        for address in [subnet.with_prefix(subnet.gateway()), alone] {
            link::add_address(&mut netlink, bridge.index, address)
                .map_err(failed("give an address to the bridge"))?;
        }
    }
    let gateway = state.config.with_prefix(state.config.gateway())?;
    link::add_address(&mut netlink, bridge.index, gateway)
        .map_err(failed("give an address to the bridge"))?;
    link::raise(&mut netlink, bridge.index, None).map_err(failed("set up the bridge"))?;
    let mut ports = state.leases.values().flat_map(|record| &record.ports);
    if ports.any(|port| port.host_address.is_ipv4() && port.is_on_loopback()) {
        set(host, name, "ipv4", "route_localnet", "1")?;
    }
    Ok(())
}

/// Sets a switch of a link, where the kernel has it.
fn set(
    namespace: &Namespace,
    link: &InterfaceName,
    family: &str,
    switch: &str,
    value: &str,
) -> Result<()> {
    let path = format!("/proc/sys/net/{family}/conf/{link}/{switch}");
    match namespace.run_io(|| fs::write(&path, value)) {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(io("write", path)),
    }
}

/// Connects a namespace with the bridge.
pub(super) fn connect(
    host: &Namespace,
    inside: &Namespace,
    state: &State,
    address: Ipv4Addr,
) -> Result<()> {
    let config = &state.config;
    let (name, mac) = (config.port_name(address)?, config.mac(address)?);
    let failed = |attempt| io(attempt, &name);
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let eth0 = InterfaceName::new(INSIDE)?;

    let mut netlink = host.netlink()?;
    let find = |netlink: &mut Netlink, name: &InterfaceName| {
        let found = link::by_name(netlink, name).and_then(|found| found.ok_or_else(gone));
        found.map_err(failed("look for the veth"))
    };
    let bridge = find(&mut netlink, config.bridge())?;
    link::make_veth(&mut netlink, &name, &eth0, mac, inside.as_fd())
        .map_err(failed("make the veth"))?;
    let port = find(&mut netlink, &name)?;
    let address6 = state.address6(address);
    let set_up = |netlink: &mut Netlink| {
        link::silence_ipv6(netlink, port.index)?;
        link::join_bridge(netlink, port.index, bridge.index)?;
        link::isolate(netlink, port.index)?;
        neighbour::add_behind_port(netlink, port.index, mac)?;
        neighbour::add(netlink, bridge.index, address.into(), mac)?;
        if let Some(address) = address6 {
            neighbour::add(netlink, bridge.index, address.into(), mac)?;
        }
        link::raise(netlink, port.index, None)
    };
    set_up(&mut netlink).map_err(failed("set up the veth"))?;

    let mut netlink = inside.netlink()?;
    let inner = find(&mut netlink, &eth0)?;
    let own = config.with_prefix(address)?;
    if address6.is_some() {
        set(inside, &eth0, "ipv6", "disable_ipv6", "0")?;
        set(inside, &eth0, "ipv6", "accept_ra", "0")?;
    }
    let gateway_mac = config.mac(config.gateway())?;
    let set_up = |netlink: &mut Netlink| {
        link::silence_ipv6(netlink, inner.index)?;
        link::add_address(netlink, inner.index, own)?;
        link::raise(netlink, inner.index, None)?;
        route::add_default(netlink, inner.index, config.gateway().into())?;
        let (Some(subnet), Some(address)) = (state.subnet6(), address6) else {
            return Ok(());
        };
        let gateway = subnet.gateway().into();
        link::add_address(netlink, inner.index, subnet.with_prefix(address))?;
        // Nobody needs to ask for it: what is asked of many, a bridge hands on as it likes.
        neighbour::add(netlink, inner.index, gateway, gateway_mac)?;
        route::add_default(netlink, inner.index, gateway)
    };
    set_up(&mut netlink).map_err(failed("set up the inner end of the veth"))
}

/// Takes the veth away, with both ends, if it is there.
pub(super) fn disconnect(host: &Namespace, state: &State, address: Ipv4Addr) -> Result<()> {
    let config = &state.config;
    let name = config.port_name(address)?;
    let mut netlink = host.netlink()?;
    let failed = |attempt| io(attempt, &name);
    match link::by_name(&mut netlink, &name).map_err(failed("look for the veth"))? {
        Some(port) if port.kind == LinkKind::Veth => {
            link::delete(&mut netlink, port.index).map_err(failed("remove the veth"))?;
        }
        _ => {}
    }
    let bridge = config.bridge();
    let found = link::by_name(&mut netlink, bridge).map_err(io("look for the bridge", bridge))?;
    let Some(bridge) = found else {
        return Ok(());
    };
    let ipv6 = state.address6(address).map(IpAddr::V6);
    for address in [Some(address.into()), ipv6].into_iter().flatten() {
        neighbour::remove(&mut netlink, bridge.index, address)
            .map_err(failed("remove the neighbour behind"))?;
    }
    Ok(())
}
