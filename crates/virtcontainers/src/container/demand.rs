//! What the containers of a sandbox may use at most, for the size of its machine.

use std::collections::BTreeMap;
use std::iter::Sum;

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
    let limits = Limits {
        millis: millis(number(POD_CPU_QUOTA), period),
        memory: memory(number(POD_MEMORY)),
    };
    limits.demand()
}

/// What the container of a specification may use, and all others of its pod.
pub(crate) fn demand_of(spec: &Spec) -> Demand {
    let annotations = spec.annotations().clone().unwrap_or_default();
    let pod = demand_of_pod(&annotations.into_iter().collect());
    let own = Limits::of(spec).demand();
    Demand {
        vcpus: pod.vcpus.max(own.vcpus),
        memory: pod.memory.max(own.memory),
    }
}

/// What containers may use, where they have limits. Those of several are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Thousandths of a processor.
    millis: Option<u64>,
    /// Bytes.
    memory: Option<u64>,
}

impl Limits {
    /// Those of one container.
    pub(crate) fn of(spec: &Spec) -> Self {
        let resources = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.resources().as_ref());
        let cpu = resources.and_then(|resources| resources.cpu().as_ref());
        let limit = resources.and_then(|resources| resources.memory().as_ref()?.limit());
        Self {
            millis: cpu.and_then(|cpu| millis(cpu.quota(), cpu.period())),
            memory: memory(limit),
        }
    }

    /// Whether it has no limit of memory.
    pub(crate) fn has_all_memory(&self) -> bool {
        self.memory.is_none()
    }

    /// Of the machine in which they are.
    pub(crate) fn demand(self) -> Demand {
        let vcpus = |millis: u64| u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX);
        Demand {
            vcpus: self.millis.map(vcpus),
            memory: self.memory.map(ByteSize::from_bytes),
        }
    }
}

impl Sum for Limits {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let both = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        all.fold(Self::default(), |sum, limits| Self {
            millis: both(sum.millis, limits.millis),
            memory: both(sum.memory, limits.memory),
        })
    }
}

/// Nothing where there is no limit, which is written as none, 0 or -1.
fn millis(quota: Option<i64>, period: Option<u64>) -> Option<u64> {
    let quota = u64::try_from(quota?).ok().filter(|quota| *quota > 0)?;
    let period = period
        .filter(|period| *period > 0)
        .unwrap_or(PERIOD_DEFAULT);
    let millis = (u128::from(quota) * 1000).div_ceil(u128::from(period));
    Some(u64::try_from(millis).unwrap_or(u64::MAX))
}

fn memory(limit: Option<i64>) -> Option<u64> {
    u64::try_from(limit?).ok().filter(|limit| *limit > 0)
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

    #[test]
    fn small_limits_of_many_are_added_up_before_they_are_rounded() {
        let limits = |quota: i64, limit: i64| {
            let resources = serde_json::json!({
                "memory": { "limit": limit }, "cpu": { "quota": quota, "period": 100_000 },
            });
            let spec = serde_json::json!({
                "ociVersion": "1.0.2", "linux": { "resources": resources },
            });
            Limits::of(&serde_json::from_value(spec).unwrap())
        };
        let sum = |all: &[Limits]| all.iter().copied().sum::<Limits>().demand();
        let tenths = [limits(10_000, 1 << 20); 10];
        let demand = sum(&tenths);
        assert_eq!(demand.vcpus, Some(1));
        assert_eq!(demand.memory, Some(ByteSize::from_mib(10)));
        // One without a limit adds none.
        assert_eq!(
            sum(&[limits(-1, 0), limits(150_000, 1 << 20)]).vcpus,
            Some(2)
        );
        assert_eq!(sum(&[limits(-1, -1)]), Demand::default());
        assert_eq!(sum(&[limits(i64::MAX, i64::MAX); 3]).vcpus, Some(u32::MAX));
    }
}
