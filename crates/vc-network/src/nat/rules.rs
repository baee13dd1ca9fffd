//! The tables of nftables, which are written anew with each change. Priorities are numbers, since
//! older versions of `nft` know the names of few.

use std::fmt::Write;
use std::net::IpAddr;

use super::config::NatConfig;
use super::ipv6::Subnet6;
use super::port::PublishedPort;
use super::state::State;

/// The tables' name.
pub(super) fn table_name(config: &NatConfig) -> String {
    format!("virtcontainers-{}", config.bridge())
}

/// The family and name of that of IPv4.
pub(super) fn table(config: &NatConfig) -> String {
    format!("ip {}", table_name(config))
}

/// The same of IPv6.
pub(super) fn table6(config: &NatConfig) -> String {
    format!("ip6 {}", table_name(config))
}

/// The script that puts the tables in the place of what is there.
pub(super) fn of(state: &State) -> String {
    let mut script = ipv4(state);
    if let Some(subnet) = state.subnet6() {
        let lines = PortLines::of(state, IpAddr::is_ipv6);
        script += &ipv6(&state.config, subnet, &lines);
    }
    script
}

/// The table of IPv6, for a kernel to be asked whether it would take it.
pub(super) fn probe6(config: &NatConfig, subnet: Subnet6) -> String {
    ipv6(config, subnet, &PortLines::default())
}

/// The rules of published ports.
#[derive(Default)]
struct PortLines {
    /// For what comes from outside.
    from_outside: String,
    /// For what the host itself sends.
    from_host: String,
    /// Those of that which its loopback address sends to itself, without what is done then.
    on_loopback: Vec<String>,
}

impl PortLines {
    fn of(state: &State, family: fn(&IpAddr) -> bool) -> Self {
        let mut lines = Self::default();
        for record in state.leases.values() {
            let ports = record.ports.iter();
            for port in ports.filter(|port| family(&port.host_address)) {
                let Some(machine) = state.machine(record, port) else {
                    continue;
                };
                let asked = format!("{} dport {}", port.protocol, port.host_port);
                let rule = format!("    {} {asked} dnat to {machine}\n", destination(port));
                lines.from_host += &rule;
                // A loopback address is nobody's but the host's.
                if !port.host_address.is_loopback() {
                    lines.from_outside += &rule;
                }
                if port.is_on_loopback() {
                    lines.on_loopback.push(asked);
                }
            }
        }
        lines
    }
}

fn ipv4(state: &State) -> String {
    let lines = PortLines::of(state, IpAddr::is_ipv4);
    let (table, bridge, subnet) = (
        table(&state.config),
        state.config.bridge(),
        state.config.subnet(),
    );
    let PortLines {
        from_outside,
        from_host,
        ..
    } = lines;
    format!(
        "add table {table}
delete table {table}
table {table} {{
  chain guard {{
    type filter hook prerouting priority -300
    iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop
    iifname \"{bridge}\" ip saddr != {subnet} drop
  }}
  chain prerouting {{
    type nat hook prerouting priority -100
{from_outside}  }}
  chain output {{
    type nat hook output priority -100
{from_host}  }}
  chain postrouting {{
    type nat hook postrouting priority 100
    ip saddr {subnet} oifname != \"{bridge}\" masquerade
    ip saddr 127.0.0.0/8 oifname \"{bridge}\" masquerade
  }}
{forward}}}
",
        forward = forward(state.config.bridge().as_str()),
    )
}

/// The host's loopback address cannot be translated as that of IPv4: the kernel takes no packet for
/// it from outside, not even one whose address is only made it again by then. So what `::1` sends to
/// itself gets another source before anything is translated, and answers get the loopback address
/// when nothing looks at it any more but the socket. Nobody behind the bridge has that address, nor the
/// gateway's; the kernel itself refuses its own addresses as senders with IPv4 alone.
fn ipv6(config: &NatConfig, subnet: Subnet6, lines: &PortLines) -> String {
    let (table, bridge) = (table6(config), config.bridge());
    let (gateway, stand_in) = (subnet.gateway(), subnet.loopback());
    let mut loopback = String::new();
    for asked in &lines.on_loopback {
        // Nothing can fail in writing to a string.
        let _ = writeln!(
            loopback,
            "    ip6 saddr ::1 ip6 daddr ::1 {asked} ip6 saddr set {stand_in}"
        );
    }
    let PortLines {
        from_outside,
        from_host,
        ..
    } = lines;
    let subnet = crate::address::Cidr::from(subnet);
    format!(
        "add table {table}
delete table {table}
table {table} {{
  chain guard {{
    type filter hook prerouting priority -300
    iifname \"{bridge}\" ip6 daddr ::1 drop
    iifname \"{bridge}\" ip6 saddr != {subnet} drop
    iifname \"{bridge}\" ip6 saddr {{ {gateway}, {stand_in} }} drop
  }}
  chain loopback {{
    type filter hook output priority -300
{loopback}  }}
  chain answers {{
    type filter hook input priority 200
    iifname \"{bridge}\" ip6 saddr ::1 ip6 daddr {stand_in} ip6 daddr set ::1
  }}
  chain prerouting {{
    type nat hook prerouting priority -100
{from_outside}  }}
  chain output {{
    type nat hook output priority -100
{from_host}  }}
  chain postrouting {{
    type nat hook postrouting priority 100
    ip6 saddr {subnet} oifname != \"{bridge}\" masquerade
  }}
{forward}}}
",
        forward = forward(bridge.as_str()),
    )
}

fn forward(bridge: &str) -> String {
    format!(
        "  chain forward {{
    type filter hook forward priority 0
    iifname \"{bridge}\" oifname \"{bridge}\" drop
    oifname \"{bridge}\" ct state established,related accept
    oifname \"{bridge}\" ct status dnat accept
    oifname \"{bridge}\" drop
  }}
"
    )
}

fn destination(port: &PublishedPort) -> String {
    match port.host_address {
        address if address.is_unspecified() => "fib daddr type local".to_owned(),
        IpAddr::V4(address) => format!("ip daddr {address}"),
        IpAddr::V6(address) => format!("ip6 daddr {address}"),
    }
}
