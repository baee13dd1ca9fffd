//! Whether the caller's network has a way to anywhere, by what the kernel says of its routes.

use std::fs;

/// Routes of IPv4 in the caller's network.
const ROUTES: &str = "/proc/thread-self/net/route";

/// The same of IPv6.
const ROUTES6: &str = "/proc/thread-self/net/ipv6_route";

/// Addresses of IPv6 in the caller's network.
const ADDRESSES6: &str = "/proc/thread-self/net/if_inet6";

/// In the flags of a route: it leads nowhere. From linux/route.h.
const REJECT: u32 = 0x0200;

/// In place of a scope: an address for everywhere. From net/ipv6.h.
const GLOBAL: &str = "00";

/// A way by IPv4.
pub(super) fn by_ipv4() -> bool {
    // A line each: interface, destination, gateway, …
    let mut lines = lines(ROUTES).skip(1);
    lines.any(|line| line.split_whitespace().nth(1) == Some("00000000"))
}

/// A way by IPv6, with an address to send from.
pub(super) fn by_ipv6() -> bool {
    leads_out(lines(ROUTES6), &lines(ADDRESSES6).collect::<Vec<_>>())
}

fn leads_out(routes: impl Iterator<Item = String>, addresses: &[String]) -> bool {
    let mut interfaces = routes.filter_map(|route| {
        // Destination, its prefix, source, its prefix, next hop, metric, two counters, flags and
        // the interface.
        let words: Vec<_> = route.split_whitespace().collect();
        let [destination, prefix, _, _, _, _, _, _, flags, interface] = words.as_slice() else {
            return None;
        };
        let leads = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & REJECT == 0);
        let anywhere = destination.bytes().all(|digit| digit == b'0') && *prefix == "00";
        (anywhere && leads).then(|| (*interface).to_owned())
    });
    interfaces.any(|interface| {
        addresses.iter().any(|line| {
            // Address, index, prefix, scope, flags and the interface.
            let words: Vec<_> = line.split_whitespace().collect();
            matches!(words.as_slice(), [_, _, _, GLOBAL, _, of] if *of == interface)
        })
    })
}

fn lines(file: &str) -> impl Iterator<Item = String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: &str = "00000000000000000000000000000000";

    fn route(destination: &str, prefix: &str, flags: &str, interface: &str) -> String {
        format!("{destination} {prefix} {ANY} 00 {ANY} 00000400 1 0 {flags} {interface}")
    }

    #[test]
    fn a_way_by_ipv6_has_a_default_route_and_an_address_on_its_link() {
        let network = "fd000000000000000000000000000000";
        let of = |address: &str, scope: &str, interface: &str| {
            vec![format!("{address} 02 40 {scope} 80 {interface}")]
        };
        let global = of("20010db8000000000000000000000002", GLOBAL, "eth0");
        let leads = |route: String, addresses: &[String]| leads_out([route].into_iter(), addresses);
        assert!(leads(route(ANY, "00", "00000003", "eth0"), &global));
        assert!(!leads(route(ANY, "00", "00200200", "eth0"), &global));
        assert!(!leads(route(ANY, "00", "00000003", "eth1"), &global));
        assert!(!leads(route(network, "40", "00000001", "eth0"), &global));
        let local = of("fe800000000000000000000000000002", "20", "eth0");
        assert!(!leads(route(ANY, "00", "00000003", "eth0"), &local));
        assert!(!leads("cut".to_owned(), &global));
    }
}
