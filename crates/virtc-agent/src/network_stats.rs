//! What the sandbox's network interfaces have carried. All containers use them together.

use std::fs::File;
use std::io::Read as _;

use agent_protocol::agent::NetworkStats;

/// Interfaces that are told of. A virtual machine has some ten at most; a container that may make
/// more of them does not make the answer grow.
const INTERFACES_MAX: usize = 64;

/// Bytes of the kernel's table that are read, twice what so many interfaces take.
const TABLE_BYTES_MAX: u64 = 32 << 10;

/// The counters of all interfaces but loopback. None when the kernel shows none.
pub(crate) fn network_stats() -> Vec<NetworkStats> {
    let mut text = String::new();
    // The agent's own namespace, which is the containers' too.
    let read = File::open("/proc/self/net/dev")
        .and_then(|file| file.take(TABLE_BYTES_MAX).read_to_string(&mut text));
    if let Err(error) = read {
        tracing::warn!(%error, "cannot read the counters of the network");
    }
    parse(&text)
}

/// Two lines of headings, then `NAME: ` with eight numbers of what came and eight of what went.
fn parse(text: &str) -> Vec<NetworkStats> {
    let lines = text.lines().skip(2).filter_map(parse_line);
    lines
        .filter(|stats| stats.name != "lo")
        .take(INTERFACES_MAX)
        .collect()
}

fn parse_line(line: &str) -> Option<NetworkStats> {
    let (name, numbers) = line.split_once(": ")?;
    let numbers = numbers.split_whitespace().map(str::parse);
    let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().ok()?;
    Some(NetworkStats {
        name: name.trim().to_owned(),
        rx_bytes: *numbers.first()?,
        rx_packets: *numbers.get(1)?,
        rx_errors: *numbers.get(2)?,
        rx_dropped: *numbers.get(3)?,
        tx_bytes: *numbers.get(8)?,
        tx_packets: *numbers.get(9)?,
        tx_errors: *numbers.get(10)?,
        tx_dropped: *numbers.get(11)?,
        ..NetworkStats::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADINGS: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo \
 colls carrier compressed
";

    #[test]
    fn each_interface_but_loopback_has_its_counters() {
        let text = format!(
            "{HEADINGS}    lo:     100       1    0    0    0     0          0         0      100  \
             1    0    0    0     0       0          0\n  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n\
             veth@x:1: 5 0 0 0 0 0 0 0 6 0 0 0 0 0 0 0\n   bad: 1 2 x\n"
        );
        let stats = parse(&text);
        assert_eq!(stats.len(), 2, "{stats:?}");
        let eth0 = &stats[0];
        assert_eq!(eth0.name, "eth0");
        assert_eq!(
            [
                eth0.rx_bytes,
                eth0.rx_packets,
                eth0.rx_errors,
                eth0.rx_dropped
            ],
            [1000, 10, 1, 2]
        );
        assert_eq!(
            [
                eth0.tx_bytes,
                eth0.tx_packets,
                eth0.tx_errors,
                eth0.tx_dropped
            ],
            [2000, 20, 3, 4]
        );
        assert_eq!((stats[1].name.as_str(), stats[1].tx_bytes), ("veth@x:1", 6));
    }

    #[test]
    fn many_interfaces_do_not_make_it_grow() {
        let line = |n: usize| format!("x{n}: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
        let text: String = (0..INTERFACES_MAX + 9).map(line).collect();
        assert_eq!(parse(&format!("{HEADINGS}{text}")).len(), INTERFACES_MAX);
        assert!(parse("").is_empty());
    }
}
