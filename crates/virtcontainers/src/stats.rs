//! What a container has used, as its guest counted it.
//!
//! The numbers are the guest's: they bound nothing on the host, and a hostile guest says what it
//! likes. Lists and names are bounded here.

use std::collections::{BTreeMap, HashMap};

use agent_protocol::agent::{self, StatsContainerResponse};
use serde::Serialize;

/// Processors of a guest whose times are kept: more than a VMM can give it.
const PROCESSORS_MAX: usize = 1024;

/// Numbers of the memory's statistics that are kept. Linux has some sixty.
const MEMORY_NUMBERS_MAX: usize = 256;

/// Entries of each list of block I/O that are kept: some operations of each device.
const BLKIO_ENTRIES_MAX: usize = 1024;

/// Sizes of huge pages that are kept. No processor has ten.
const HUGE_PAGE_SIZES_MAX: usize = 16;

/// Network interfaces that are kept.
const INTERFACES_MAX: usize = 256;

/// Characters of a name that are kept. Those of network interfaces have 15, the longest of the
/// memory's statistics some thirty.
const NAME_CHARS_MAX: usize = 64;

/// What a container has used, and its limits. A limit that there is not is [`u64::MAX`].
///
/// ```
/// use virtcontainers::ContainerStats;
///
/// let stats = ContainerStats::default();
/// assert_eq!(stats.memory.usage.bytes, 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ContainerStats {
    /// The time of processors.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Block devices.
    pub blkio: BlkioStats,
    /// Huge pages, by their size, such as `2MB`.
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// Network interfaces.
    pub networks: Vec<NetworkStats>,
}

/// The time of processors, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuStats {
    /// All of it.
    pub total: u64,
    /// Of each processor; empty where the guest does not count them apart.
    pub per_cpu: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In programs.
    pub user: u64,
    /// How often the limit was reached.
    pub throttling: ThrottlingStats,
}

/// How often a container reached its limit of processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ThrottlingStats {
    /// Periods that passed.
    pub periods: u64,
    /// Those of them in which it had to wait.
    pub throttled_periods: u64,
    /// How long it waited, in nanoseconds.
    pub throttled_time: u64,
}

/// Memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    /// Bytes of files that are cached.
    pub cache: u64,
    /// All of it.
    pub usage: MemoryUsage,
    /// Swap alone.
    pub swap: MemoryUsage,
    /// The kernel's part.
    pub kernel: MemoryUsage,
    /// Everything else that the guest's kernel counts, in the words of its `memory.stat`.
    pub numbers: BTreeMap<String, u64>,
}

/// One kind of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryUsage {
    /// What is used, in bytes.
    pub bytes: u64,
    /// The most that was used at once, in bytes; 0 where the guest does not know.
    pub max_bytes: u64,
    /// How often the limit was reached.
    pub limit_reached: u64,
    /// The limit, in bytes.
    pub limit: u64,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be.
    pub limit: u64,
}

/// Block devices: a list for each thing that is counted. Those that the second version of cgroups
/// does not have are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlkioStats {
    /// Bytes.
    pub service_bytes: Vec<BlkioEntry>,
    /// Operations.
    pub serviced: Vec<BlkioEntry>,
    /// Operations that wait.
    pub queued: Vec<BlkioEntry>,
    /// The time from an operation's dispatch to its end, in nanoseconds.
    pub service_time: Vec<BlkioEntry>,
    /// The time of waiting, in nanoseconds.
    pub wait_time: Vec<BlkioEntry>,
    /// Operations that were merged into others.
    pub merged: Vec<BlkioEntry>,
    /// The time of the device, in milliseconds.
    pub time: Vec<BlkioEntry>,
    /// Sectors.
    pub sectors: Vec<BlkioEntry>,
}

/// One number of one block device of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    /// The device's major number.
    pub major: u64,
    /// Its minor number.
    pub minor: u64,
    /// What was done with it, such as `Read`.
    pub op: String,
    /// How much of it.
    pub value: u64,
}

/// Huge pages of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HugetlbStats {
    /// What is used, in bytes.
    pub bytes: u64,
    /// The most that was used at once, in bytes; 0 where the guest does not know.
    pub max_bytes: u64,
    /// How often the limit was reached.
    pub limit_reached: u64,
}

/// One network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NetworkStats {
    /// Its name in the guest.
    pub name: String,
    /// Bytes that came in.
    pub rx_bytes: u64,
    /// Packets that came in.
    pub rx_packets: u64,
    /// Packets that came in wrong.
    pub rx_errors: u64,
    /// Packets that came in and were thrown away.
    pub rx_dropped: u64,
    /// Bytes that went out.
    pub tx_bytes: u64,
    /// Packets that went out.
    pub tx_packets: u64,
    /// Packets that could not go out.
    pub tx_errors: u64,
    /// Packets that were to go out and were thrown away.
    pub tx_dropped: u64,
}

impl From<StatsContainerResponse> for ContainerStats {
    /// Takes what a guest says. Of lists that are longer than a sound guest's the rest is left
    /// out, and names are cut and escaped.
    fn from(message: StatsContainerResponse) -> Self {
        let cgroup = message.cgroup_stats.unwrap_or_default();
        let networks = message.network_stats.into_iter().take(INTERFACES_MAX);
        Self {
            cpu: cgroup.cpu_stats.unwrap_or_default().into(),
            memory: cgroup.memory_stats.unwrap_or_default().into(),
            pids: cgroup.pids_stats.unwrap_or_default().into(),
            blkio: cgroup.blkio_stats.unwrap_or_default().into(),
            hugetlb: bounded(cgroup.hugetlb_stats, HUGE_PAGE_SIZES_MAX),
            networks: networks.map(Into::into).collect(),
        }
    }
}

impl From<agent::CpuStats> for CpuStats {
    fn from(message: agent::CpuStats) -> Self {
        let mut usage = message.cpu_usage.unwrap_or_default();
        usage.percpu_usage.truncate(PROCESSORS_MAX);
        let throttling = message.throttling_data.unwrap_or_default();
        Self {
            total: usage.total_usage,
            per_cpu: usage.percpu_usage,
            kernel: usage.usage_in_kernelmode,
            user: usage.usage_in_usermode,
            throttling: ThrottlingStats {
                periods: throttling.periods,
                throttled_periods: throttling.throttled_periods,
                throttled_time: throttling.throttled_time,
            },
        }
    }
}

impl From<agent::MemoryStats> for MemoryStats {
    fn from(message: agent::MemoryStats) -> Self {
        Self {
            cache: message.cache,
            usage: message.usage.unwrap_or_default().into(),
            swap: message.swap_usage.unwrap_or_default().into(),
            kernel: message.kernel_usage.unwrap_or_default().into(),
            numbers: bounded(message.stats, MEMORY_NUMBERS_MAX),
        }
    }
}

impl From<agent::MemoryData> for MemoryUsage {
    fn from(message: agent::MemoryData) -> Self {
        Self {
            bytes: message.usage,
            max_bytes: message.max_usage,
            limit_reached: message.failcnt,
            limit: message.limit,
        }
    }
}

impl From<agent::PidsStats> for PidsStats {
    fn from(message: agent::PidsStats) -> Self {
        Self {
            current: message.current,
            limit: message.limit,
        }
    }
}

impl From<agent::BlkioStats> for BlkioStats {
    fn from(message: agent::BlkioStats) -> Self {
        let list = |entries: Vec<agent::BlkioStatsEntry>| {
            let entries = entries.into_iter().take(BLKIO_ENTRIES_MAX);
            entries.map(Into::into).collect()
        };
        Self {
            service_bytes: list(message.io_service_bytes_recursive),
            serviced: list(message.io_serviced_recursive),
            queued: list(message.io_queued_recursive),
            service_time: list(message.io_service_time_recursive),
            wait_time: list(message.io_wait_time_recursive),
            merged: list(message.io_merged_recursive),
            time: list(message.io_time_recursive),
            sectors: list(message.sectors_recursive),
        }
    }
}

impl From<agent::BlkioStatsEntry> for BlkioEntry {
    fn from(message: agent::BlkioStatsEntry) -> Self {
        Self {
            major: message.major,
            minor: message.minor,
            op: name(&message.op),
            value: message.value,
        }
    }
}

impl From<agent::HugetlbStats> for HugetlbStats {
    fn from(message: agent::HugetlbStats) -> Self {
        Self {
            bytes: message.usage,
            max_bytes: message.max_usage,
            limit_reached: message.failcnt,
        }
    }
}

impl From<agent::NetworkStats> for NetworkStats {
    fn from(message: agent::NetworkStats) -> Self {
        Self {
            name: name(&message.name),
            rx_bytes: message.rx_bytes,
            rx_packets: message.rx_packets,
            rx_errors: message.rx_errors,
            rx_dropped: message.rx_dropped,
            tx_bytes: message.tx_bytes,
            tx_packets: message.tx_packets,
            tx_errors: message.tx_errors,
            tx_dropped: message.tx_dropped,
        }
    }
}

/// The first `max` entries by name: which ones a hash map has first changes from call to call.
fn bounded<M, T: From<M>>(map: HashMap<String, M>, max: usize) -> BTreeMap<String, T> {
    let sorted: BTreeMap<_, _> = map.into_iter().collect();
    let entries = sorted.into_iter().take(max);
    entries
        .map(|(key, value)| (name(&key), value.into()))
        .collect()
}

/// A guest's name, cut and escaped.
fn name(text: &str) -> String {
    let cut: String = text.chars().take(NAME_CHARS_MAX).collect();
    vc_types::one_line(&cut)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protobuf::MessageField;

    use super::*;

    fn of_cgroup(cgroup: agent::CgroupStats) -> ContainerStats {
        let message = StatsContainerResponse {
            cgroup_stats: MessageField::some(cgroup),
            ..StatsContainerResponse::default()
        };
        message.into()
    }

    #[test]
    fn every_number_has_its_place() {
        let data = |usage| agent::MemoryData {
            usage,
            max_usage: usage + 1,
            failcnt: usage + 2,
            limit: usage + 3,
            ..Default::default()
        };
        let usage = |bytes| MemoryUsage {
            bytes,
            max_bytes: bytes + 1,
            limit_reached: bytes + 2,
            limit: bytes + 3,
        };
        let entry = |value| {
            vec![agent::BlkioStatsEntry {
                major: 8,
                minor: 1,
                op: "Read".into(),
                value,
                ..Default::default()
            }]
        };
        let cgroup = agent::CgroupStats {
            cpu_stats: MessageField::some(agent::CpuStats {
                cpu_usage: MessageField::some(agent::CpuUsage {
                    total_usage: 1,
                    percpu_usage: vec![2, 3],
                    usage_in_kernelmode: 4,
                    usage_in_usermode: 5,
                    ..Default::default()
                }),
                throttling_data: MessageField::some(agent::ThrottlingData {
                    periods: 6,
                    throttled_periods: 7,
                    throttled_time: 8,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            memory_stats: MessageField::some(agent::MemoryStats {
                cache: 9,
                usage: MessageField::some(data(10)),
                swap_usage: MessageField::some(data(20)),
                kernel_usage: MessageField::some(data(30)),
                stats: [("anon".to_owned(), 40)].into(),
                ..Default::default()
            }),
            pids_stats: MessageField::some(agent::PidsStats {
                current: 41,
                limit: u64::MAX,
                ..Default::default()
            }),
            blkio_stats: MessageField::some(agent::BlkioStats {
                io_service_bytes_recursive: entry(50),
                io_serviced_recursive: entry(51),
                io_queued_recursive: entry(52),
                io_service_time_recursive: entry(53),
                io_wait_time_recursive: entry(54),
                io_merged_recursive: entry(55),
                io_time_recursive: entry(56),
                sectors_recursive: entry(57),
                ..Default::default()
            }),
            hugetlb_stats: [(
                "2MB".to_owned(),
                agent::HugetlbStats {
                    usage: 60,
                    max_usage: 61,
                    failcnt: 62,
                    ..Default::default()
                },
            )]
            .into(),
            ..Default::default()
        };
        let stats = of_cgroup(cgroup);
        assert_eq!((stats.cpu.total, stats.cpu.per_cpu), (1, vec![2, 3]));
        assert_eq!((stats.cpu.kernel, stats.cpu.user), (4, 5));
        let ThrottlingStats {
            periods,
            throttled_periods,
            throttled_time,
        } = stats.cpu.throttling;
        assert_eq!((periods, throttled_periods, throttled_time), (6, 7, 8));
        assert_eq!(stats.memory.cache, 9);
        let memory = [stats.memory.usage, stats.memory.swap, stats.memory.kernel];
        assert_eq!(memory, [10, 20, 30].map(usage));
        assert_eq!(stats.memory.numbers["anon"], 40);
        assert_eq!((stats.pids.current, stats.pids.limit), (41, u64::MAX));
        let blkio = stats.blkio;
        let lists = [
            blkio.service_bytes,
            blkio.serviced,
            blkio.queued,
            blkio.service_time,
            blkio.wait_time,
            blkio.merged,
            blkio.time,
            blkio.sectors,
        ];
        let values: Vec<_> = lists.iter().map(|list| list[0].value).collect();
        assert_eq!(values, [50, 51, 52, 53, 54, 55, 56, 57]);
        let first = &lists[0][0];
        assert_eq!(
            (first.major, first.minor, first.op.as_str()),
            (8, 1, "Read")
        );
        let pages = stats.hugetlb["2MB"];
        assert_eq!(
            (pages.bytes, pages.max_bytes, pages.limit_reached),
            (60, 61, 62)
        );
    }

    #[test]
    fn a_guest_that_says_nothing_has_used_nothing() {
        let stats = ContainerStats::from(StatsContainerResponse::default());
        assert_eq!(stats, ContainerStats::default());
    }

    #[test]
    fn lists_of_a_hostile_guest_are_cut() {
        let blkio = agent::BlkioStats {
            io_time_recursive: vec![agent::BlkioStatsEntry::default(); BLKIO_ENTRIES_MAX + 1],
            ..Default::default()
        };
        let cpu = agent::CpuStats {
            cpu_usage: MessageField::some(agent::CpuUsage {
                percpu_usage: vec![1; PROCESSORS_MAX + 1],
                ..Default::default()
            }),
            ..Default::default()
        };
        let numbers = (0..2 * MEMORY_NUMBERS_MAX as u64).map(|n| (format!("{n:04}"), n));
        let memory = agent::MemoryStats {
            stats: numbers.collect(),
            ..Default::default()
        };
        let sizes = (0..100).map(|n| (format!("{n}kB"), agent::HugetlbStats::default()));
        let message = StatsContainerResponse {
            cgroup_stats: MessageField::some(agent::CgroupStats {
                cpu_stats: MessageField::some(cpu),
                memory_stats: MessageField::some(memory),
                blkio_stats: MessageField::some(blkio),
                hugetlb_stats: sizes.collect(),
                ..Default::default()
            }),
            network_stats: vec![agent::NetworkStats::default(); INTERFACES_MAX + 1],
            ..Default::default()
        };
        let stats = ContainerStats::from(message);
        assert_eq!(stats.blkio.time.len(), BLKIO_ENTRIES_MAX);
        assert_eq!(stats.cpu.per_cpu.len(), PROCESSORS_MAX);
        assert_eq!(stats.hugetlb.len(), HUGE_PAGE_SIZES_MAX);
        assert_eq!(stats.networks.len(), INTERFACES_MAX);
        assert_eq!(stats.memory.numbers.len(), MEMORY_NUMBERS_MAX);
        // The same ones each time.
        assert!(
            stats
                .memory
                .numbers
                .values()
                .copied()
                .eq(0..MEMORY_NUMBERS_MAX as u64)
        );
    }

    proptest! {
        #[test]
        fn names_of_a_guest_are_short_and_speak_to_no_terminal(text in "\\PC{0,20}.{0,200}") {
            let network = agent::NetworkStats { name: text.clone(), ..Default::default() };
            let cgroup = agent::CgroupStats {
                hugetlb_stats: [(text, agent::HugetlbStats::default())].into(),
                ..Default::default()
            };
            let message = StatsContainerResponse {
                cgroup_stats: MessageField::some(cgroup),
                network_stats: vec![network],
                ..Default::default()
            };
            let stats = ContainerStats::from(message);
            let names = stats.hugetlb.into_keys().chain([stats.networks[0].name.clone()]);
            for name in names {
                prop_assert!(!name.chars().any(char::is_control));
                // An escaped character has up to ten.
                prop_assert!(name.chars().count() <= 10 * NAME_CHARS_MAX);
            }
        }
    }
}
