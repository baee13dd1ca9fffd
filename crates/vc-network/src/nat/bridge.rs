//! The bridge in the host's namespace, and the veths from it into the leases' namespaces.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use super::config::NatConfig;
use super::state::State;
use crate::address::Cidr;
use crate::error::{Error, Result, io};
use crate::interface_name::InterfaceName;
use crate::link::{self, LinkKind};
use crate::namespace::Namespace;
use crate::neighbour;
use crate::netlink::Netlink;
use crate::route;

/// The machine's link in its namespace.
const INSIDE: &str = "eth0";

/// Checks that the host's own addresses and routes leave the subnet free.
pub(super) fn check_subnet(netlink: &mut Netlink, config: &NatConfig) -> Result<()> {
    let subnet = config.subnet();
    let taken = |by: String| Error::SubnetTaken { subnet, by };
    let addresses = link::addresses_of(netlink).map_err(io("list the addresses of", "the host"))?;
    for address in addresses.values().flatten() {
        if overlap(address.cidr, subnet) {
            return Err(taken(format!("the address {}", address.cidr)));
        }
    }
    let routes = route::list(netlink).map_err(io("list the routes of", "the host"))?;
    for route in routes.set.into_iter().flatten() {
        // The way to everything else leaves what is nearer free.
        if route.destination.prefix() != 0 && overlap(route.destination, subnet) {
            return Err(taken(format!("the route to {}", route.destination)));
        }
    }
    Ok(())
}

fn overlap(one: Cidr, other: Cidr) -> bool {
    let (IpAddr::V4(first), IpAddr::V4(second)) = (one.address(), other.address()) else {
        return false;
    };
    let prefix = u32::from(one.prefix().min(other.prefix()));
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    first.to_bits() & mask == second.to_bits() & mask
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
    set(host, name, "ipv6", "disable_ipv6")?;
    link::silence_ipv6(&mut netlink, bridge.index).map_err(failed("set up the bridge"))?;
    let gateway = state.config.with_prefix(state.config.gateway())?;
    link::add_address(&mut netlink, bridge.index, gateway)
        .map_err(failed("give an address to the bridge"))?;
    link::raise(&mut netlink, bridge.index, None).map_err(failed("set up the bridge"))?;
    let loopback = |port: &super::PublishedPort| {
        port.host_address.is_loopback() || port.host_address.is_unspecified()
    };
    let mut ports = state.leases.values().flat_map(|record| &record.ports);
    if ports.any(loopback) {
        set(host, name, "ipv4", "route_localnet")?;
    }
    Ok(())
}

/// Sets a switch of the bridge, where the kernel has it.
fn set(host: &Namespace, bridge: &InterfaceName, family: &str, switch: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{family}/conf/{bridge}/{switch}");
    match host.run_io(|| fs::write(&path, "1")) {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(io("write", path)),
    }
}

/// Connects a namespace with the bridge.
pub(super) fn connect(
    host: &Namespace,
    inside: &Namespace,
    config: &NatConfig,
    address: Ipv4Addr,
) -> Result<()> {
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
    let set_up = |netlink: &mut Netlink| {
        link::silence_ipv6(netlink, port.index)?;
        link::join_bridge(netlink, port.index, bridge.index)?;
        link::isolate(netlink, port.index)?;
        neighbour::add_behind_port(netlink, port.index, mac)?;
        neighbour::add(netlink, bridge.index, address, mac)?;
        link::raise(netlink, port.index, None)
    };
    set_up(&mut netlink).map_err(failed("set up the veth"))?;

    let mut netlink = inside.netlink()?;
    let inner = find(&mut netlink, &eth0)?;
    let own = config.with_prefix(address)?;
    let set_up = |netlink: &mut Netlink| {
        link::silence_ipv6(netlink, inner.index)?;
        link::add_address(netlink, inner.index, own)?;
        link::raise(netlink, inner.index, None)?;
        route::add_default(netlink, inner.index, config.gateway())
    };
    set_up(&mut netlink).map_err(failed("set up the inner end of the veth"))
}

/// Takes the veth away, with both ends, if it is there.
pub(super) fn disconnect(host: &Namespace, config: &NatConfig, address: Ipv4Addr) -> Result<()> {
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
    match link::by_name(&mut netlink, bridge).map_err(io("look for the bridge", bridge))? {
        Some(bridge) => neighbour::remove(&mut netlink, bridge.index, address)
            .map_err(failed("remove the neighbour behind")),
        None => Ok(()),
    }
}
