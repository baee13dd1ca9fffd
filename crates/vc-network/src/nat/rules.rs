//! The table of nftables, which is written anew with each change. Priorities are numbers, since older
//! versions of `nft` know the names of few.

use std::fmt::Write;

use super::config::NatConfig;
use super::port::PublishedPort;
use super::state::State;

/// The table's name.
pub(super) fn table_name(config: &NatConfig) -> String {
    format!("virtcontainers-{}", config.bridge())
}

/// Its family and name.
pub(super) fn table(config: &NatConfig) -> String {
    format!("ip {}", table_name(config))
}

/// The script that puts the table in the place of what is there.
pub(super) fn of(state: &State) -> String {
    let (table, bridge, subnet) = (
        table(&state.config),
        state.config.bridge(),
        state.config.subnet(),
    );
    let (mut from_outside, mut from_host) = (String::new(), String::new());
    for record in state.leases.values() {
        for port in &record.ports {
            let rule = format!(
                "{} {} dport {} dnat to {}:{}\n",
                destination(port),
                port.protocol,
                port.host_port,
                record.address,
                port.guest_port,
            );
            from_host += &rule;
            // A loopback address is nobody's but the host's.
            if !port.host_address.is_loopback() {
                from_outside += &rule;
            }
        }
    }
    let mut script = String::new();
    // Nothing can fail in writing to a string.
    let _ = write!(
        script,
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
  chain forward {{
    type filter hook forward priority 0
    iifname \"{bridge}\" oifname \"{bridge}\" drop
    oifname \"{bridge}\" ct state established,related accept
    oifname \"{bridge}\" ct status dnat accept
    oifname \"{bridge}\" drop
  }}
}}
"
    );
    script
}

fn destination(port: &PublishedPort) -> String {
    if port.host_address.is_unspecified() {
        "fib daddr type local".to_owned()
    } else {
        format!("ip daddr {}", port.host_address)
    }
}
