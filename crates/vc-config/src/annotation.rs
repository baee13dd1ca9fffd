//! Settings by annotation: a bundle may ask for a few, as far as the administrator allows.

use serde::{Deserialize, Serialize};

use crate::setting::{Kind, Setting, list};

/// What the annotations that are settings begin with; the key's whole path follows.
///
/// ```
/// let annotation = format!("{}network.send_rate", vc_config::ANNOTATION_PREFIX);
/// assert_eq!(annotation, "io.virtcontainers.network.send_rate");
/// ```
pub const ANNOTATION_PREFIX: &str = "io.virtcontainers.";

/// The keys that an administrator can allow: those of one sandbox, with which it harms no other one.
pub const ANNOTATION_KEYS: &[&str] = &[
    "network.interworking",
    "network.queues",
    "network.receive_rate",
    "network.send_rate",
    "network.vhost",
    "runtime.sandbox_cgroup",
    "vm.memory",
    "vm.memory_max",
    "vm.vcpus",
    "vm.vcpus_max",
];

/// How a value of Kata Containers is written here.
#[derive(Clone, Copy, Debug)]
enum KataValue {
    /// As it is there.
    Same,
    /// A number in this unit.
    In(&'static str),
    /// One word for `true`, another for `false`.
    Switch { on: &'static str, off: &'static str },
}

impl KataValue {
    /// What is neither `true` nor `false` stays: it is no value here either.
    fn translated(self, text: &str) -> String {
        match (self, text) {
            (Self::Switch { on, .. }, "true") => on.to_owned(),
            (Self::Switch { off, .. }, "false") => off.to_owned(),
            (Self::Same | Self::Switch { .. }, text) => text.to_owned(),
            (Self::In(unit), text) => format!("{text}{unit}"),
        }
    }
}

/// Annotations of Kata Containers that say what a key does, with the key and how their value is
/// written for it. They hold as ours do, as far as the administrator allows the key.
const KATA_NAMES: [(&str, &str, KataValue); 6] = [
    (
        "io.katacontainers.config.hypervisor.default_memory",
        "vm.memory",
        KataValue::In("MiB"),
    ),
    (
        "io.katacontainers.config.hypervisor.default_max_memory",
        "vm.memory_max",
        KataValue::In("MiB"),
    ),
    (
        "io.katacontainers.config.hypervisor.default_max_vcpus",
        "vm.vcpus_max",
        KataValue::Same,
    ),
    (
        "io.katacontainers.config.hypervisor.default_vcpus",
        "vm.vcpus",
        KataValue::Same,
    ),
    (
        "io.katacontainers.config.runtime.internetworking_model",
        "network.interworking",
        KataValue::Same,
    ),
    (
        "io.katacontainers.config.runtime.sandbox_cgroup_only",
        "runtime.sandbox_cgroup",
        KataValue::Switch {
            on: "pod",
            off: "own",
        },
    ),
];

/// The key that an annotation sets, and to what; nothing for one that is no setting.
pub(crate) fn setting_of(annotation: &str, text: &str) -> Option<(String, String)> {
    if let Some(key) = annotation.strip_prefix(ANNOTATION_PREFIX) {
        return Some((key.to_owned(), text.to_owned()));
    }
    let known = KATA_NAMES.iter().find(|(name, ..)| *name == annotation);
    known.map(|(_, key, value)| ((*key).to_owned(), value.translated(text)))
}

/// The keys that annotations may set, each matched whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedKeys(Vec<String>);

impl AllowedKeys {
    /// Whether an annotation may set the key with this path.
    pub fn contains(&self, key: &str) -> bool {
        self.0.iter().any(|allowed| allowed == key)
    }
}

impl Setting for AllowedKeys {
    const KIND: Kind = Kind::AllowedKeys;

    fn read(value: toml::Value) -> Result<Self, String> {
        let keys = Vec::<String>::read(value)?;
        match keys
            .iter()
            .find(|key| !ANNOTATION_KEYS.contains(&key.as_str()))
        {
            Some(key) => Err(format!(
                "{key:?} is not one of {}",
                ANNOTATION_KEYS.join(", ")
            )),
            None => Ok(Self(keys)),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(list(self.0.iter().map(String::as_str)))
    }
}
