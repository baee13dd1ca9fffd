use std::path::PathBuf;

use clap::Args;

/// Change the limits of a running container.
///
/// What is not named stays as it is. Memory is a number of bytes, or has a binary unit: k, m, g,
/// t, p; -1 is no limit.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct UpdateArgs {
    /// A file with the limits as the OCI specification describes them; - is stdin
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["blkio_weight", "cpu_period",
        "cpu_quota", "cpu_burst", "cpu_share", "cpu_rt_period", "cpu_rt_runtime", "cpuset_cpus",
        "cpuset_mems", "kernel_memory", "kernel_memory_tcp", "memory", "memory_reservation",
        "memory_swap", "pids_limit", "l3_cache_schema", "mem_bw_schema", "cpu_idle"])]
    pub(crate) resources: Option<PathBuf>,

    /// The weight of its block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<u16>,

    /// The period of --cpu-quota, in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_period: Option<u64>,

    /// Its processor time in each period, in microseconds; -1 is no limit
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub(crate) cpu_quota: Option<i64>,

    /// What of a quota it can save up for later, in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_burst: Option<u64>,

    /// The weight of its processor time
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) cpu_share: Option<u64>,

    /// Whether it gets processor time only where nobody else wants it: 1, or 0
    #[arg(long, value_name = "0|1", value_parser = clap::value_parser!(i64).range(0..=1))]
    pub(crate) cpu_idle: Option<i64>,

    /// Its memory
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,

    /// The memory that it is to keep when there is little
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<String>,

    /// Its memory and swap together
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,

    /// Its processes and threads; -1 is no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) pids_limit: Option<i64>,

    /// Not supported
    #[arg(long, hide = true)]
    pub(crate) cpu_rt_period: Option<String>,

    /// Not supported
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) cpu_rt_runtime: Option<String>,

    /// Not supported
    #[arg(long, hide = true)]
    pub(crate) cpuset_cpus: Option<String>,

    /// Not supported
    #[arg(long, hide = true)]
    pub(crate) cpuset_mems: Option<String>,

    /// Not supported
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) kernel_memory: Option<String>,

    /// Not supported
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) kernel_memory_tcp: Option<String>,

    /// Not supported
    #[arg(long, hide = true)]
    pub(crate) l3_cache_schema: Option<String>,

    /// Not supported
    #[arg(long, hide = true)]
    pub(crate) mem_bw_schema: Option<String>,

    /// The container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}
