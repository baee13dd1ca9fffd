//! Limits that mean nothing for a container in a machine of its own.

use oci_spec::runtime::LinuxResources;
use virtcontainers::Error;

use crate::cli::UpdateArgs;
use crate::error::Failure;

const PROCESSORS: &str = "the machine has processors of its own, and these number the host's";
const REAL_TIME: &str = "the guest's cgroups have no limits of real-time scheduling";
const KERNEL_MEMORY: &str = "the guest's kernel counts it with the container's memory";
const CACHES: &str = "caches and memory bandwidth are the host's";

/// Refuses flags by name.
pub(super) fn flags(args: &UpdateArgs) -> Result<(), Failure> {
    let given = [
        (&args.cpuset_cpus, "--cpuset-cpus", PROCESSORS),
        (&args.cpuset_mems, "--cpuset-mems", PROCESSORS),
        (&args.cpu_rt_period, "--cpu-rt-period", REAL_TIME),
        (&args.cpu_rt_runtime, "--cpu-rt-runtime", REAL_TIME),
        (&args.kernel_memory, "--kernel-memory", KERNEL_MEMORY),
        (
            &args.kernel_memory_tcp,
            "--kernel-memory-tcp",
            KERNEL_MEMORY,
        ),
        (&args.l3_cache_schema, "--l3-cache-schema", CACHES),
        (&args.mem_bw_schema, "--mem-bw-schema", CACHES),
    ];
    // Nothing is given with nothing, as with runc.
    let is_given = |value: &Option<String>| value.as_ref().is_some_and(|v| !v.is_empty());
    match given.into_iter().find(|(value, ..)| is_given(value)) {
        Some((_, flag, reason)) => Err(unsupported(flag, reason)),
        None => Ok(()),
    }
}

/// Refuses what a document asks for by its keys. Nothing is asked for with 0 and empty text.
pub(super) fn keys(resources: &LinuxResources) -> Result<(), Failure> {
    if let Some(cpu) = resources.cpu() {
        let named = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
        let asked = [
            (named(cpu.cpus()), "cpu.cpus", PROCESSORS),
            (named(cpu.mems()), "cpu.mems", PROCESSORS),
            (
                cpu.realtime_period().unwrap_or_default() != 0,
                "cpu.realtimePeriod",
                REAL_TIME,
            ),
            (
                cpu.realtime_runtime().unwrap_or_default() != 0,
                "cpu.realtimeRuntime",
                REAL_TIME,
            ),
        ];
        refuse_asked(asked)?;
    }
    if let Some(memory) = resources.memory() {
        #[allow(deprecated, reason = "it is refused")]
        let kernel = memory.kernel().unwrap_or_default();
        let kernel_tcp = memory.kernel_tcp().unwrap_or_default();
        refuse_asked([
            (kernel != 0, "memory.kernel", KERNEL_MEMORY),
            (kernel_tcp != 0, "memory.kernelTCP", KERNEL_MEMORY),
        ])?;
    }
    Ok(())
}

fn refuse_asked<const N: usize>(asked: [(bool, &str, &str); N]) -> Result<(), Failure> {
    match asked.into_iter().find(|(asked, ..)| *asked) {
        Some((_, key, reason)) => Err(unsupported(&format!("`{key}`"), reason)),
        None => Ok(()),
    }
}

fn unsupported(what: &str, reason: &str) -> Failure {
    let what = format!("a change of {what}");
    Failure::from(Error::Unsupported { what }).note(reason)
}
