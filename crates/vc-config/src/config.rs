use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sections::{Factory, Guest, Limits, Network, Qemu, Runtime, Scratch, Share, Vm};
use crate::setting::{Key, Kind, Section};
use crate::syntax::KernelParam;

/// The configuration of virtcontainers.
///
/// ```
/// use vc_config::{Accelerator, Config};
///
/// let config = Config::default();
/// assert_eq!(config.runtime.accelerator, Accelerator::Auto);
/// assert_eq!(config.limits.kill_after_timeout_ms.duration().as_secs(), 10);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[runtime]`
    pub runtime: Runtime,
    /// `[hypervisor]`
    pub hypervisor: Hypervisor,
    /// `[guest]`
    pub guest: Guest,
    /// `[vm]`
    pub vm: Vm,
    /// `[factory]`
    pub factory: Factory,
    /// `[share]`
    pub share: Share,
    /// `[scratch]`
    pub scratch: Scratch,
    /// `[network]`
    pub network: Network,
    /// `[limits]`
    pub limits: Limits,
}

/// The hypervisors, a table each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hypervisor {
    /// `[hypervisor.qemu]`
    pub qemu: Qemu,
}

/// Something that is wrong with one key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) key: String,
    pub(crate) message: String,
}

impl Config {
    /// The sections, in the order of the documentation.
    pub fn sections(&self) -> [&dyn Section; 9] {
        [
            &self.runtime,
            &self.hypervisor.qemu,
            &self.guest,
            &self.vm,
            &self.factory,
            &self.share,
            &self.scratch,
            &self.network,
            &self.limits,
        ]
    }

    fn sections_mut(&mut self) -> [&mut dyn Section; 9] {
        [
            &mut self.runtime,
            &mut self.hypervisor.qemu,
            &mut self.guest,
            &mut self.vm,
            &mut self.factory,
            &mut self.share,
            &mut self.scratch,
            &mut self.network,
            &mut self.limits,
        ]
    }

    /// Every key, in the order of the documentation.
    pub fn keys() -> Vec<&'static Key> {
        let config = Self::default();
        let sections = config.sections();
        sections.iter().flat_map(|section| section.keys()).collect()
    }

    /// The value of a key; nothing where it is not set.
    pub fn get(&self, key: &Key) -> Option<toml::Value> {
        self.section(key)?.get(key.name)
    }

    fn section(&self, key: &Key) -> Option<&dyn Section> {
        let of = |section: &&dyn Section| is_of(section.keys(), key);
        self.sections().into_iter().find(of)
    }

    /// Sets a key, and says in words what is wrong with the value.
    pub(crate) fn set(&mut self, key: &Key, value: toml::Value) -> Result<(), String> {
        let mut sections = self.sections_mut().into_iter();
        match sections.find(|section| is_of(section.keys(), key)) {
            Some(section) => section.set(key.name, value),
            None => Err("its section is not known".to_owned()),
        }
    }

    /// Everything that is wrong with the values, whatever their type allows.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        for key in Self::keys() {
            if let Err(message) = self.check(key) {
                let key = key.path();
                found.push(Violation { key, message });
            }
        }
        found
    }

    fn check(&self, key: &Key) -> Result<(), String> {
        let number = self
            .section(key)
            .and_then(|section| section.number(key.name));
        if let (Some(range), Some(number)) = (&key.range, number)
            && !range.contains(&number)
        {
            return Err(format!(
                "{number} is not in {}",
                shown_range(key).unwrap_or_default()
            ));
        }
        match (key.kind, self.get(key)) {
            (Kind::Path, Some(toml::Value::String(path))) if !Path::new(&path).is_absolute() => {
                Err(format!("{path:?} is not an absolute path"))
            }
            (Kind::KernelParams, Some(toml::Value::Array(items))) => {
                let mut items = items.iter().filter_map(toml::Value::as_str);
                items.try_for_each(|item| match item.parse::<KernelParam>() {
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.to_string()),
                })
            }
            _ => Ok(()),
        }
    }
}

/// The numbers that a key allows, as its documentation and its errors show them.
pub(crate) fn shown_range(key: &Key) -> Option<String> {
    let range = key.range.as_ref()?;
    let show = |number: &u64| match key.kind {
        Kind::Size => vc_types::ByteSize::from_bytes(*number).to_string(),
        Kind::Rate => crate::Rate::new(*number).to_string(),
        _ => number.to_string(),
    };
    Some(format!("{} to {}", show(range.start()), show(range.end())))
}

fn is_of(keys: &[Key], key: &Key) -> bool {
    keys.first()
        .is_some_and(|first| first.section == key.section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problem() {
        assert_eq!(Config::default().violations(), []);
    }

    #[test]
    fn every_key_is_found_and_reads_back_what_it_shows() {
        let defaults = Config::default();
        let mut config = Config::default();
        for key in Config::keys() {
            match defaults.get(key) {
                Some(value) => config.set(key, value).unwrap(),
                None => assert!(key.unset.is_some(), "{}", key.path()),
            }
        }
        assert_eq!(config, defaults);
    }

    #[test]
    fn the_names_of_the_variables_are_distinct() {
        let mut names: Vec<_> = Config::keys().iter().map(|key| key.variable()).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_stored_configuration_is_read_strictly() {
        let stored = serde_json::to_string(&Config::default()).unwrap();
        assert_eq!(
            serde_json::from_str::<Config>(&stored).unwrap(),
            Config::default()
        );
        assert!(serde_json::from_str::<Config>(r#"{"vm": {"cpus": 1}}"#).is_err());
    }

    #[test]
    fn all_violations_are_found_at_once() {
        let mut config = Config::default();
        config.vm.vcpus = Some(0);
        config.runtime.root = "run".into();
        config.guest.kernel_params = vec!["a b".into()];
        let keys: Vec<_> = config.violations().into_iter().map(|v| v.key).collect();
        assert_eq!(keys, ["runtime.root", "guest.kernel_params", "vm.vcpus"]);
    }
}
