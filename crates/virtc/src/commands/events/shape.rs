//! The form of runc 1.1's `events` (`types/events.go`): its keys, and what it leaves out when it
//! is nothing. What a guest's cgroups do not say (`cpuset`) has no key.

use std::collections::BTreeMap;

use serde::Serialize;
use vc_types::ContainerId;
use virtcontainers::{
    BlkioEntry, ContainerStats, CpuStats, HugetlbStats, MemoryUsage, NetworkStats, ThrottlingStats,
};

/// One line.
#[derive(Debug, Serialize)]
pub(crate) struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats<'a>>,
}

impl<'a> Event<'a> {
    /// What a container has used.
    pub(crate) fn stats(id: &'a ContainerId, stats: &'a ContainerStats) -> Self {
        Self {
            kind: "stats",
            id: id.as_str(),
            data: Some(stats.into()),
        }
    }

    /// A process of the container was killed because there was no memory left.
    pub(crate) fn oom(id: &'a ContainerId) -> Self {
        Self {
            kind: "oom",
            id: id.as_str(),
            data: None,
        }
    }
}

/// `Stats` of runc.
#[derive(Debug, Serialize)]
pub(crate) struct Stats<'a> {
    cpu: Cpu<'a>,
    memory: Memory<'a>,
    pids: Pids,
    blkio: Blkio<'a>,
    hugetlb: BTreeMap<&'a str, Hugetlb>,
    intel_rdt: IntelRdt,
    network_interfaces: Vec<NetworkInterface<'a>>,
}

#[derive(Debug, Serialize)]
struct Cpu<'a> {
    usage: CpuUsage<'a>,
    throttling: Throttling,
}

#[derive(Debug, Serialize)]
struct CpuUsage<'a> {
    #[serde(skip_serializing_if = "is_nothing")]
    total: u64,
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    percpu: &'a [u64],
    kernel: u64,
    user: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_nothing")]
    periods: u64,
    #[serde(skip_serializing_if = "is_nothing")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "is_nothing")]
    throttled_time: u64,
}

#[derive(Debug, Serialize)]
struct Memory<'a> {
    #[serde(skip_serializing_if = "is_nothing")]
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: &'a BTreeMap<String, u64>,
}

#[derive(Debug, Default, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "is_nothing")]
    usage: u64,
    #[serde(skip_serializing_if = "is_nothing")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_nothing")]
    current: u64,
    #[serde(skip_serializing_if = "is_nothing")]
    limit: u64,
}

#[derive(Debug, Serialize)]
struct Blkio<'a> {
    #[serde(
        rename = "ioServiceBytesRecursive",
        skip_serializing_if = "Vec::is_empty"
    )]
    service_bytes: Vec<BlkioValue<'a>>,
    #[serde(rename = "ioServicedRecursive", skip_serializing_if = "Vec::is_empty")]
    serviced: Vec<BlkioValue<'a>>,
    // Without the d that the others would have it with.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    queued: Vec<BlkioValue<'a>>,
    #[serde(
        rename = "ioServiceTimeRecursive",
        skip_serializing_if = "Vec::is_empty"
    )]
    service_time: Vec<BlkioValue<'a>>,
    #[serde(rename = "ioWaitTimeRecursive", skip_serializing_if = "Vec::is_empty")]
    wait_time: Vec<BlkioValue<'a>>,
    #[serde(rename = "ioMergedRecursive", skip_serializing_if = "Vec::is_empty")]
    merged: Vec<BlkioValue<'a>>,
    #[serde(rename = "ioTimeRecursive", skip_serializing_if = "Vec::is_empty")]
    time: Vec<BlkioValue<'a>>,
    #[serde(rename = "sectorsRecursive", skip_serializing_if = "Vec::is_empty")]
    sectors: Vec<BlkioValue<'a>>,
}

#[derive(Debug, Serialize)]
struct BlkioValue<'a> {
    #[serde(skip_serializing_if = "is_nothing")]
    major: u64,
    #[serde(skip_serializing_if = "is_nothing")]
    minor: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    op: &'a str,
    #[serde(skip_serializing_if = "is_nothing")]
    value: u64,
}

#[derive(Debug, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "is_nothing")]
    usage: u64,
    #[serde(skip_serializing_if = "is_nothing")]
    max: u64,
    failcnt: u64,
}

/// A guest has none.
#[derive(Debug, Serialize)]
struct IntelRdt {}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkInterface<'a> {
    name: &'a str,
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

// Serde asks with a reference.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_nothing(number: &u64) -> bool {
    *number == 0
}

impl<'a> From<&'a ContainerStats> for Stats<'a> {
    fn from(stats: &'a ContainerStats) -> Self {
        let memory = &stats.memory;
        let blkio = &stats.blkio;
        let hugetlb = stats.hugetlb.iter();
        Self {
            cpu: (&stats.cpu).into(),
            memory: Memory {
                cache: memory.cache,
                usage: memory.usage.into(),
                swap: memory_and_swap(memory.usage, memory.swap).into(),
                kernel: memory.kernel.into(),
                kernel_tcp: MemoryEntry::default(),
                raw: &memory.numbers,
            },
            pids: Pids {
                current: stats.pids.current,
                // Without a limit it is 0, here alone.
                limit: match stats.pids.limit {
                    u64::MAX => 0,
                    limit => limit,
                },
            },
            blkio: Blkio {
                service_bytes: values(&blkio.service_bytes),
                serviced: values(&blkio.serviced),
                queued: values(&blkio.queued),
                service_time: values(&blkio.service_time),
                wait_time: values(&blkio.wait_time),
                merged: values(&blkio.merged),
                time: values(&blkio.time),
                sectors: values(&blkio.sectors),
            },
            hugetlb: hugetlb
                .map(|(size, pages)| (size.as_str(), pages.into()))
                .collect(),
            intel_rdt: IntelRdt {},
            network_interfaces: stats.networks.iter().map(Into::into).collect(),
        }
    }
}

/// What runc calls swap: memory and swap together, as the first version of cgroups counts it. The
/// most of both at once is not known.
fn memory_and_swap(memory: MemoryUsage, swap: MemoryUsage) -> MemoryUsage {
    MemoryUsage {
        bytes: swap.bytes.saturating_add(memory.bytes),
        max_bytes: 0,
        limit_reached: swap.limit_reached,
        // No limit of one is no limit of both.
        limit: swap.limit.saturating_add(memory.limit),
    }
}

fn values(entries: &[BlkioEntry]) -> Vec<BlkioValue<'_>> {
    let values = entries.iter().map(|entry| BlkioValue {
        major: entry.major,
        minor: entry.minor,
        op: &entry.op,
        value: entry.value,
    });
    values.collect()
}

impl<'a> From<&'a CpuStats> for Cpu<'a> {
    fn from(cpu: &'a CpuStats) -> Self {
        let ThrottlingStats {
            periods,
            throttled_periods,
            throttled_time,
        } = cpu.throttling;
        Self {
            usage: CpuUsage {
                total: cpu.total,
                percpu: &cpu.per_cpu,
                kernel: cpu.kernel,
                user: cpu.user,
            },
            throttling: Throttling {
                periods,
                throttled_periods,
                throttled_time,
            },
        }
    }
}

impl From<MemoryUsage> for MemoryEntry {
    fn from(usage: MemoryUsage) -> Self {
        Self {
            limit: usage.limit,
            usage: usage.bytes,
            max: usage.max_bytes,
            failcnt: usage.limit_reached,
        }
    }
}

impl From<&HugetlbStats> for Hugetlb {
    fn from(pages: &HugetlbStats) -> Self {
        Self {
            usage: pages.bytes,
            max: pages.max_bytes,
            failcnt: pages.limit_reached,
        }
    }
}

impl<'a> From<&'a NetworkStats> for NetworkInterface<'a> {
    fn from(network: &'a NetworkStats) -> Self {
        Self {
            name: &network.name,
            rx_bytes: network.rx_bytes,
            rx_packets: network.rx_packets,
            rx_errors: network.rx_errors,
            rx_dropped: network.rx_dropped,
            tx_bytes: network.tx_bytes,
            tx_packets: network.tx_packets,
            tx_errors: network.tx_errors,
            tx_dropped: network.tx_dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn id() -> ContainerId {
        ContainerId::new("c1").unwrap()
    }

    fn shape(stats: &ContainerStats) -> Value {
        serde_json::to_value(Event::stats(&id(), stats)).unwrap()
    }

    fn usage(bytes: u64, limit: u64) -> MemoryUsage {
        MemoryUsage {
            bytes,
            max_bytes: bytes + 1,
            limit_reached: 2,
            limit,
        }
    }

    #[test]
    fn a_container_that_used_nothing_has_the_keys_that_runc_always_writes() {
        let none = json!({"limit": 0, "failcnt": 0});
        let expected = json!({"type": "stats", "id": "c1", "data": {
            "cpu": {"usage": {"kernel": 0, "user": 0}, "throttling": {}},
            "memory": {"usage": none, "swap": none, "kernel": none, "kernelTCP": none},
            "pids": {},
            "blkio": {},
            "hugetlb": {},
            "intel_rdt": {},
            "network_interfaces": [],
        }});
        assert_eq!(shape(&ContainerStats::default()), expected);
    }

    #[test]
    fn everything_has_runcs_key() {
        let entry = |value| {
            vec![BlkioEntry {
                major: 253,
                minor: 0,
                op: "Read".into(),
                value,
            }]
        };
        let mut stats = ContainerStats::default();
        stats.cpu.total = 10;
        stats.cpu.per_cpu = vec![4, 6];
        stats.cpu.kernel = 3;
        stats.cpu.user = 7;
        stats.cpu.throttling = ThrottlingStats {
            periods: 1,
            throttled_periods: 2,
            throttled_time: 3,
        };
        stats.memory.cache = 5;
        stats.memory.usage = usage(100, 1000);
        stats.memory.swap = usage(20, 500);
        stats.memory.kernel = usage(30, u64::MAX);
        stats.memory.numbers = [("anon".to_owned(), 9)].into();
        stats.pids.current = 3;
        stats.pids.limit = 64;
        stats.blkio.service_bytes = entry(1);
        stats.blkio.serviced = entry(2);
        stats.blkio.queued = entry(3);
        stats.blkio.service_time = entry(4);
        stats.blkio.wait_time = entry(5);
        stats.blkio.merged = entry(6);
        stats.blkio.time = entry(7);
        stats.blkio.sectors = entry(8);
        let pages = HugetlbStats {
            bytes: 1,
            max_bytes: 2,
            limit_reached: 3,
        };
        stats.hugetlb = [("2MB".to_owned(), pages)].into();
        stats.networks = vec![NetworkStats {
            name: "eth0".into(),
            rx_bytes: 1,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 5,
            tx_packets: 6,
            tx_errors: 7,
            tx_dropped: 8,
        }];
        let value = |value| json!([{"major": 253, "op": "Read", "value": value}]);
        let expected = json!({"type": "stats", "id": "c1", "data": {
            "cpu": {
                "usage": {"total": 10, "percpu": [4, 6], "kernel": 3, "user": 7},
                "throttling": {"periods": 1, "throttledPeriods": 2, "throttledTime": 3},
            },
            "memory": {
                "cache": 5,
                "usage": {"limit": 1000, "usage": 100, "max": 101, "failcnt": 2},
                "swap": {"limit": 1500, "usage": 120, "failcnt": 2},
                "kernel": {"limit": u64::MAX, "usage": 30, "max": 31, "failcnt": 2},
                "kernelTCP": {"limit": 0, "failcnt": 0},
                "raw": {"anon": 9},
            },
            "pids": {"current": 3, "limit": 64},
            "blkio": {
                "ioServiceBytesRecursive": value(1),
                "ioServicedRecursive": value(2),
                "ioQueueRecursive": value(3),
                "ioServiceTimeRecursive": value(4),
                "ioWaitTimeRecursive": value(5),
                "ioMergedRecursive": value(6),
                "ioTimeRecursive": value(7),
                "sectorsRecursive": value(8),
            },
            "hugetlb": {"2MB": {"usage": 1, "max": 2, "failcnt": 3}},
            "intel_rdt": {},
            "network_interfaces": [{
                "Name": "eth0",
                "RxBytes": 1, "RxPackets": 2, "RxErrors": 3, "RxDropped": 4,
                "TxBytes": 5, "TxPackets": 6, "TxErrors": 7, "TxDropped": 8,
            }],
        }});
        assert_eq!(shape(&stats), expected);
    }

    #[test]
    fn no_limit_is_what_it_is_for_runc() {
        let mut stats = ContainerStats::default();
        stats.pids.limit = u64::MAX;
        stats.memory.usage.limit = 1000;
        stats.memory.swap.limit = u64::MAX;
        let data = &shape(&stats)["data"];
        assert_eq!(data["pids"], json!({}));
        assert_eq!(data["memory"]["swap"]["limit"], json!(u64::MAX));
    }

    #[test]
    fn an_event_without_data_is_one_line_of_two_keys() {
        let id = id();
        let line = serde_json::to_string(&Event::oom(&id)).unwrap();
        assert_eq!(line, r#"{"type":"oom","id":"c1"}"#);
    }
}
