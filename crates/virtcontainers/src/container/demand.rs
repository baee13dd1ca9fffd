//! What the containers of a sandbox may use at most, for the size of its machine.

use std::collections::BTreeMap;

use oci_spec::runtime::Spec;
use vc_config::Demand;
use vc_types::ByteSize;

/// What containerd notes at the sandbox of a pod, for all its containers: bytes, and microseconds
/// of processors in a period.
const POD_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
const POD_CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const POD_CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";

/// The kernel's period where none is given, in microseconds.
const PERIOD_DEFAULT: u64 = 100_000;

/// What a pod may use, as its sandbox's annotations say: the sum over its containers, where each has
/// a limit. What cannot be read is no limit.
///
/// ```
/// use virtcontainers::demand_of_pod;
///
/// let note = |key: &str, value: &str| (format!("io.kubernetes.cri.sandbox-{key}"), value.into());
/// let annotations = [
///     note("memory", "4294967296"),
///     note("cpu-quota", "250000"),
///     note("cpu-period", "100000"),
/// ];
/// let demand = demand_of_pod(&annotations.into());
/// assert_eq!((demand.vcpus, demand.memory.map(|size| size.mib())), (Some(3), Some(4096)));
/// ```
pub fn demand_of_pod(annotations: &BTreeMap<String, String>) -> Demand {
    let number = |key| annotations.get(key).and_then(|value| value.parse().ok());
    let period = number(POD_CPU_PERIOD).and_then(|period| u64::try_from(period).ok());
    Demand {
        vcpus: vcpus(number(POD_CPU_QUOTA), period),
        memory: memory(number(POD_MEMORY)),
    }
}

/// What the container of a specification may use, and all others of its pod.
pub(crate) fn demand_of(spec: &Spec) -> Demand {
    let annotations = spec.annotations().clone().unwrap_or_default();
    let pod = demand_of_pod(&annotations.into_iter().collect());
    let resources = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref());
    let own = resources.map_or_else(Demand::default, |resources| {
        let cpu = resources.cpu().as_ref();
        Demand {
            vcpus: cpu.and_then(|cpu| vcpus(cpu.quota(), cpu.period())),
            memory: memory(
                resources
                    .memory()
                    .as_ref()
                    .and_then(|memory| memory.limit()),
            ),
        }
    });
    Demand {
        vcpus: pod.vcpus.max(own.vcpus),
        memory: pod.memory.max(own.memory),
    }
}

/// Nothing where there is no limit, which is written as none, 0 or -1.
fn vcpus(quota: Option<i64>, period: Option<u64>) -> Option<u32> {
    let quota = u64::try_from(quota?).ok().filter(|quota| *quota > 0)?;
    let period = period
        .filter(|period| *period > 0)
        .unwrap_or(PERIOD_DEFAULT);
    Some(u32::try_from(quota.div_ceil(period)).unwrap_or(u32::MAX))
}

fn memory(limit: Option<i64>) -> Option<ByteSize> {
    let limit = u64::try_from(limit?).ok().filter(|limit| *limit > 0)?;
    Some(ByteSize::from_bytes(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(notes: &[(&str, &str)]) -> Demand {
        let notes = notes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        demand_of_pod(&notes.collect())
    }

    #[test]
    fn what_is_no_limit_asks_for_nothing() {
        for text in ["", "0", "-1", "many", "9223372036854775808"] {
            let demand = pod(&[(POD_MEMORY, text), (POD_CPU_QUOTA, text)]);
            assert_eq!(demand, Demand::default(), "{text}");
        }
        let demand = pod(&[(POD_CPU_QUOTA, "150000"), (POD_CPU_PERIOD, "-5")]);
        assert_eq!(demand.vcpus, Some(2));
        let demand = pod(&[
            (POD_CPU_QUOTA, "9223372036854775807"),
            (POD_CPU_PERIOD, "1"),
        ]);
        assert_eq!(demand.vcpus, Some(u32::MAX));
    }

    #[test]
    fn the_larger_of_a_pods_limits_and_the_containers_own_counts() {
        let spec = serde_json::json!({
            "ociVersion": "1.0.2",
            "annotations": { POD_MEMORY: "1048576", POD_CPU_QUOTA: "500000" },
            "linux": { "resources": {
                "memory": { "limit": 2097152 },
                "cpu": { "quota": 20000, "period": 10000 },
            } },
        });
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let demand = demand_of(&spec);
        assert_eq!(demand.vcpus, Some(5));
        assert_eq!(demand.memory, Some(ByteSize::from_mib(2)));
        assert_eq!(demand_of(&Spec::default()), Demand::default());
    }
}
