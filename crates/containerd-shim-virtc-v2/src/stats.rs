//! What a container has used, in the words of the host's version of cgroups: clients look for those.

use std::path::Path;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use virtcontainers::{BlkioEntry, ContainerStats, MemoryUsage};

use crate::error::Result;

/// Which version of cgroups the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl Version {
    pub(crate) fn of_host() -> Self {
        match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            true => Self::V2,
            false => Self::V1,
        }
    }
}

/// The message that containerd passes on.
///
/// # Errors
///
/// [`crate::error::Error::Message`], which does not happen.
pub(crate) fn metrics(stats: &ContainerStats, version: Version) -> Result<Any> {
    let (type_url, value) = match version {
        Version::V1 => (
            "io.containerd.cgroups.v1.Metrics",
            of_v1(stats).write_to_bytes()?,
        ),
        Version::V2 => (
            "io.containerd.cgroups.v2.Metrics",
            of_v2(stats).write_to_bytes()?,
        ),
    };
    Ok(Any {
        type_url: type_url.to_owned(),
        value,
        ..Any::default()
    })
}

fn of_v1(stats: &ContainerStats) -> v1::Metrics {
    let entries = |list: &[BlkioEntry]| {
        let entry = |one: &BlkioEntry| v1::BlkIOEntry {
            op: one.op.clone(),
            major: one.major,
            minor: one.minor,
            value: one.value,
            ..Default::default()
        };
        list.iter().map(entry).collect()
    };
    let memory = |usage: MemoryUsage| {
        MessageField::some(v1::MemoryEntry {
            limit: usage.limit,
            usage: usage.bytes,
            max: usage.max_bytes,
            failcnt: usage.limit_reached,
            ..Default::default()
        })
    };
    let number = |name: &str| stats.memory.numbers.get(name).copied().unwrap_or_default();
    let hugetlb = stats.hugetlb.iter().map(|(size, pages)| v1::HugetlbStat {
        usage: pages.bytes,
        max: pages.max_bytes,
        failcnt: pages.limit_reached,
        pagesize: size.clone(),
        ..Default::default()
    });
    let network = stats.networks.iter().map(|one| v1::NetworkStat {
        name: one.name.clone(),
        rx_bytes: one.rx_bytes,
        rx_packets: one.rx_packets,
        rx_errors: one.rx_errors,
        rx_dropped: one.rx_dropped,
        tx_bytes: one.tx_bytes,
        tx_packets: one.tx_packets,
        tx_errors: one.tx_errors,
        tx_dropped: one.tx_dropped,
        ..Default::default()
    });
    v1::Metrics {
        hugetlb: hugetlb.collect(),
        pids: MessageField::some(v1::PidsStat {
            current: stats.pids.current,
            limit: limit(stats.pids.limit),
            ..Default::default()
        }),
        cpu: MessageField::some(v1::CPUStat {
            usage: MessageField::some(v1::CPUUsage {
                total: stats.cpu.total,
                kernel: stats.cpu.kernel,
                user: stats.cpu.user,
                per_cpu: stats.cpu.per_cpu.clone(),
                ..Default::default()
            }),
            throttling: MessageField::some(v1::Throttle {
                periods: stats.cpu.throttling.periods,
                throttled_periods: stats.cpu.throttling.throttled_periods,
                throttled_time: stats.cpu.throttling.throttled_time,
                ..Default::default()
            }),
            ..Default::default()
        }),
        memory: MessageField::some(v1::MemoryStat {
            cache: stats.memory.cache,
            rss: number("anon"),
            mapped_file: number("file_mapped"),
            dirty: number("file_dirty"),
            writeback: number("file_writeback"),
            pg_fault: number("pgfault"),
            pg_maj_fault: number("pgmajfault"),
            inactive_anon: number("inactive_anon"),
            active_anon: number("active_anon"),
            inactive_file: number("inactive_file"),
            total_inactive_file: number("inactive_file"),
            active_file: number("active_file"),
            unevictable: number("unevictable"),
            total_rss: number("anon"),
            total_cache: stats.memory.cache,
            usage: memory(stats.memory.usage),
            swap: memory(stats.memory.swap),
            kernel: memory(stats.memory.kernel),
            ..Default::default()
        }),
        blkio: MessageField::some(v1::BlkIOStat {
            io_service_bytes_recursive: entries(&stats.blkio.service_bytes),
            io_serviced_recursive: entries(&stats.blkio.serviced),
            io_queued_recursive: entries(&stats.blkio.queued),
            io_service_time_recursive: entries(&stats.blkio.service_time),
            io_wait_time_recursive: entries(&stats.blkio.wait_time),
            io_merged_recursive: entries(&stats.blkio.merged),
            io_time_recursive: entries(&stats.blkio.time),
            sectors_recursive: entries(&stats.blkio.sectors),
            ..Default::default()
        }),
        network: network.collect(),
        ..Default::default()
    }
}

fn of_v2(stats: &ContainerStats) -> v2::Metrics {
    let micros = |nanos: u64| nanos / 1_000;
    let number = |name: &str| stats.memory.numbers.get(name).copied().unwrap_or_default();
    let hugetlb = stats.hugetlb.iter().map(|(size, pages)| v2::HugeTlbStat {
        current: pages.bytes,
        max: pages.max_bytes,
        pagesize: size.clone(),
        ..Default::default()
    });
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: stats.pids.current,
            limit: limit(stats.pids.limit),
            ..Default::default()
        }),
        cpu: MessageField::some(v2::CPUStat {
            usage_usec: micros(stats.cpu.total),
            user_usec: micros(stats.cpu.user),
            system_usec: micros(stats.cpu.kernel),
            nr_periods: stats.cpu.throttling.periods,
            nr_throttled: stats.cpu.throttling.throttled_periods,
            throttled_usec: micros(stats.cpu.throttling.throttled_time),
            ..Default::default()
        }),
        memory: MessageField::some(v2::MemoryStat {
            anon: number("anon"),
            file: number("file"),
            kernel_stack: number("kernel_stack"),
            slab: number("slab"),
            sock: number("sock"),
            shmem: number("shmem"),
            file_mapped: number("file_mapped"),
            file_dirty: number("file_dirty"),
            file_writeback: number("file_writeback"),
            inactive_anon: number("inactive_anon"),
            active_anon: number("active_anon"),
            inactive_file: number("inactive_file"),
            active_file: number("active_file"),
            unevictable: number("unevictable"),
            slab_reclaimable: number("slab_reclaimable"),
            slab_unreclaimable: number("slab_unreclaimable"),
            pgfault: number("pgfault"),
            pgmajfault: number("pgmajfault"),
            usage: stats.memory.usage.bytes,
            usage_limit: stats.memory.usage.limit,
            swap_usage: stats.memory.swap.bytes,
            swap_limit: stats.memory.swap.limit,
            ..Default::default()
        }),
        io: MessageField::some(v2::IOStat {
            usage: devices(stats),
            ..Default::default()
        }),
        hugetlb: hugetlb.collect(),
        ..Default::default()
    }
}

/// One entry a device, of lists that have one a device and operation.
fn devices(stats: &ContainerStats) -> Vec<v2::IOEntry> {
    let mut devices: Vec<v2::IOEntry> = Vec::new();
    let lists = [
        (&stats.blkio.service_bytes, true),
        (&stats.blkio.serviced, false),
    ];
    for (list, bytes) in lists {
        for one in list {
            let known = |entry: &v2::IOEntry| (entry.major, entry.minor) == (one.major, one.minor);
            let place = devices.iter().position(known).unwrap_or_else(|| {
                devices.push(v2::IOEntry {
                    major: one.major,
                    minor: one.minor,
                    ..Default::default()
                });
                devices.len() - 1
            });
            let entry = &mut devices[place];
            let number = match (one.op.to_ascii_lowercase().as_str(), bytes) {
                ("read", true) => &mut entry.rbytes,
                ("write", true) => &mut entry.wbytes,
                ("read", false) => &mut entry.rios,
                ("write", false) => &mut entry.wios,
                _ => continue,
            };
            *number = one.value;
        }
    }
    devices
}

/// No limit is 0 to those who ask for one of processes.
fn limit(limit: u64) -> u64 {
    match limit {
        u64::MAX => 0,
        limit => limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> ContainerStats {
        let mut stats = ContainerStats::default();
        stats.cpu.total = 5_000_000;
        stats.pids.current = 3;
        stats.pids.limit = u64::MAX;
        stats.memory.usage.bytes = 4096;
        stats.memory.numbers.insert("anon".into(), 77);
        let entry = |op: &str, value| BlkioEntry {
            major: 254,
            minor: 16,
            op: op.into(),
            value,
        };
        stats.blkio.service_bytes = vec![entry("Read", 1), entry("Write", 2)];
        stats.blkio.serviced = vec![entry("Read", 3), entry("Write", 4)];
        stats
    }

    #[test]
    fn both_versions_have_the_numbers() {
        let any = metrics(&stats(), Version::V1).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let v1 = v1::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(
            (v1.cpu.usage.total, v1.memory.usage.usage),
            (5_000_000, 4096)
        );
        assert_eq!((v1.pids.current, v1.pids.limit), (3, 0));
        assert_eq!(v1.memory.rss, 77);
        assert_eq!(v1.blkio.io_service_bytes_recursive.len(), 2);
        let any = metrics(&stats(), Version::V2).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let v2 = v2::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(
            (v2.cpu.usage_usec, v2.memory.usage, v2.memory.anon),
            (5000, 4096, 77)
        );
        let [io] = v2.io.usage.as_slice() else {
            panic!("{:?}", v2.io.usage);
        };
        assert_eq!((io.rbytes, io.wbytes, io.rios, io.wios), (1, 2, 3, 4));
    }
}
