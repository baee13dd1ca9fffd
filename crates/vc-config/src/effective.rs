//! The configuration as it holds, with the origin of every value.

use serde::Serialize;

use crate::config::Config;
use crate::load::{Loaded, Origin};

/// One key as it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// The key's whole path.
    pub key: String,
    /// Its value as TOML writes it; for a key that nobody set and that has no fixed default,
    /// nothing.
    pub value: Option<String>,
    /// What is done where there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unset: Option<&'static str>,
    /// Who set it.
    #[serde(flatten)]
    pub origin: Origin,
}

impl Effective {
    /// The value, or what is done without one, for a person.
    pub fn shown(&self) -> String {
        match (&self.value, self.unset) {
            (Some(value), _) => value.clone(),
            (None, Some(unset)) => format!("({unset})"),
            (None, None) => String::new(),
        }
    }
}

impl Loaded {
    /// Every key with its value and its origin, in the order of the documentation.
    pub fn effective(&self) -> Vec<Effective> {
        let keys = Config::keys().into_iter();
        keys.map(|key| {
            let value = self.config.get(key).map(|value| value.to_string());
            Effective {
                key: key.path(),
                unset: key.unset.filter(|_| value.is_none()),
                value,
                origin: self.origin(&key.path()),
            }
        })
        .collect()
    }
}
