//! What a container has used, in the protocol's words, which are those of the first version.

use std::fs;

use agent_protocol::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData,
    MemoryStats, PidsStats, ThrottlingData,
};
use protobuf::MessageField;

use super::Cgroup;

/// Block devices that are told of.
const DEVICES_MAX: usize = 256;

const NS_PER_US: u64 = 1000;

impl Cgroup {
    /// Reads all statistics. What the kernel does not have is zero.
    pub(crate) fn stats(&self) -> CgroupStats {
        CgroupStats {
            cpu_stats: MessageField::some(self.cpu_stats()),
            memory_stats: MessageField::some(self.memory_stats()),
            pids_stats: MessageField::some(PidsStats {
                current: self.number("pids.current"),
                limit: self.number("pids.max"),
                ..PidsStats::default()
            }),
            blkio_stats: MessageField::some(blkio_stats(&self.text("io.stat"))),
            hugetlb_stats: self.hugetlb_stats(),
            ..CgroupStats::default()
        }
    }

    fn cpu_stats(&self) -> CpuStats {
        let stat = self.numbers("cpu.stat");
        let get = |name: &str| stat.get(name).copied().unwrap_or(0);
        CpuStats {
            cpu_usage: MessageField::some(CpuUsage {
                total_usage: get("usage_usec").saturating_mul(NS_PER_US),
                usage_in_kernelmode: get("system_usec").saturating_mul(NS_PER_US),
                usage_in_usermode: get("user_usec").saturating_mul(NS_PER_US),
                ..CpuUsage::default()
            }),
            throttling_data: MessageField::some(ThrottlingData {
                periods: get("nr_periods"),
                throttled_periods: get("nr_throttled"),
                throttled_time: get("throttled_usec").saturating_mul(NS_PER_US),
                ..ThrottlingData::default()
            }),
            ..CpuStats::default()
        }
    }

    fn memory_stats(&self) -> MemoryStats {
        let stats = self.numbers("memory.stat");
        let get = |name: &str| stats.get(name).copied().unwrap_or(0);
        let events = self.numbers("memory.events");
        let usage = MemoryData {
            usage: self.number("memory.current"),
            max_usage: self.number("memory.peak"),
            failcnt: events.get("max").copied().unwrap_or(0),
            limit: self.number("memory.max"),
            ..MemoryData::default()
        };
        let swap_usage = MemoryData {
            usage: self.number("memory.swap.current"),
            limit: self.number("memory.swap.max"),
            ..MemoryData::default()
        };
        MemoryStats {
            cache: get("file"),
            usage: MessageField::some(usage),
            swap_usage: MessageField::some(swap_usage),
            kernel_usage: MessageField::some(MemoryData {
                usage: get("kernel"),
                limit: u64::MAX,
                ..MemoryData::default()
            }),
            use_hierarchy: true,
            stats,
            ..MemoryStats::default()
        }
    }

    fn hugetlb_stats(&self) -> std::collections::HashMap<String, HugetlbStats> {
        let names = fs::read_dir(self.path()).into_iter().flatten().flatten();
        names
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let size = name
                    .strip_prefix("hugetlb.")?
                    .strip_suffix(".current")?
                    .to_owned();
                if size.ends_with(".rsvd") {
                    return None;
                }
                let stats = HugetlbStats {
                    usage: self.number(&name),
                    failcnt: self
                        .numbers(&format!("hugetlb.{size}.events"))
                        .get("max")
                        .copied()
                        .unwrap_or(0),
                    ..HugetlbStats::default()
                };
                Some((size, stats))
            })
            .collect()
    }

    /// A file with one number; `max` is the largest.
    fn number(&self, file: &str) -> u64 {
        parse_limit(&self.text(file))
    }
}

fn parse_limit(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// Lines `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …`.
fn blkio_stats(text: &str) -> BlkioStats {
    let mut stats = BlkioStats::default();
    for line in text.lines().take(DEVICES_MAX) {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) =
            device.map(|(major, minor)| (major.parse::<u64>(), minor.parse::<u64>()))
        else {
            continue;
        };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let (list, op) = match name {
                "rbytes" => (&mut stats.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut stats.io_service_bytes_recursive, "Write"),
                "rios" => (&mut stats.io_serviced_recursive, "Read"),
                "wios" => (&mut stats.io_serviced_recursive, "Write"),
                _ => continue,
            };
            let op = op.to_owned();
            list.push(BlkioStatsEntry {
                major,
                minor,
                op,
                value,
                ..BlkioStatsEntry::default()
            });
        }
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_lines_become_entries() {
        let stats = blkio_stats("253:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0\nodd\n8:x a=1\n");
        let bytes = &stats.io_service_bytes_recursive;
        assert_eq!(bytes.len(), 2);
        assert_eq!(
            (bytes[1].major, bytes[1].op.as_str(), bytes[1].value),
            (253, "Write", 20)
        );
        assert_eq!(stats.io_serviced_recursive.len(), 2);
    }

    #[test]
    fn no_limit_is_the_largest_number() {
        assert_eq!(parse_limit("max\n"), u64::MAX);
        assert_eq!(parse_limit("12\n"), 12);
        assert_eq!(parse_limit(""), 0);
    }
}
