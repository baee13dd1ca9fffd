//! containerd's settings: which version they are of, and that they mean with the handler what they should.

use toml::{Table, Value};

use super::block::{HANDLER, RUNTIME_TYPE, Runtimes, append, block, without_block};
use crate::error::{FAILED, Failure};

/// What the plug-in is called where the file's names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// containerd 1.3 and later.
    Two,
    /// containerd 2; from 4 on, tables that are none of ours have other places.
    Three(i64),
}

impl Version {
    /// The newest one that a containerd of this major version reads as it is.
    pub(super) const fn of_containerd(major: u32) -> Self {
        match major {
            0 | 1 => Self::Two,
            _ => Self::Three(3),
        }
    }

    pub(super) const fn number(self) -> i64 {
        match self {
            Self::Two => 2,
            Self::Three(number) => number,
        }
    }

    /// The plug-in of Kubernetes' runtime interface.
    pub(super) const fn plugin(self) -> &'static str {
        match self {
            Self::Two => "io.containerd.grpc.v1.cri",
            Self::Three(_) => "io.containerd.cri.v1.runtime",
        }
    }

    fn path(self) -> [&'static str; 5] {
        let plugin = self.plugin();
        ["plugins", plugin, "containerd", "runtimes", HANDLER]
    }
}

/// Settings that were read.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    text: &'a str,
    table: Table,
    version: Version,
}

impl<'a> Settings<'a> {
    /// Reads them; those that are imported and name no version have that of `importer`.
    ///
    /// # Errors
    ///
    /// What is no TOML, and versions whose tables are not known.
    pub(super) fn parse(text: &'a str, importer: Option<Version>) -> Result<Self, Failure> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            Failure::new(FAILED, "the settings cannot be read").note(error.to_string())
        })?;
        let version = match (table.get("version"), importer) {
            (Some(Value::Integer(2)), _) => Version::Two,
            (Some(Value::Integer(number @ (3 | 4))), _) => Version::Three(*number),
            (None, Some(importer)) => importer,
            (None | Some(Value::Integer(0 | 1)), _) => {
                return Err(Failure::new(FAILED, "the settings are of version 1").hint(
                    "have them rewritten: containerd config migrate, of containerd 1.7 or later",
                ));
            }
            (Some(other), _) => {
                let message = format!("the settings have the version {other}, which is not known");
                return Err(Failure::new(FAILED, message));
            }
        };
        Ok(Self {
            text,
            table,
            version,
        })
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Whether they say anything about the plug-in.
    pub(super) fn have_plugin(&self) -> bool {
        at(&self.table, &self.version.path()[..2]).is_some()
    }

    /// Whether they switch the plug-in off.
    pub(super) fn switch_off_plugin(&self) -> bool {
        let disabled = self.table.get("disabled_plugins").and_then(Value::as_array);
        let names = disabled.into_iter().flatten().filter_map(Value::as_str);
        let mut names = names.filter(|&name| {
            name == self.version.plugin() || name == "cri" || name == Version::Two.plugin()
        });
        names.next().is_some()
    }

    /// The files that they import, as they are named.
    pub(super) fn imports(&self) -> Vec<&str> {
        let imports = self.table.get("imports").and_then(Value::as_array);
        let names = imports.into_iter().flatten().filter_map(Value::as_str);
        names.collect()
    }

    /// The text with the handler; what it was where there is one that somebody else wrote.
    ///
    /// # Errors
    ///
    /// When the name belongs to another runtime, or the tables are written in a way to which none can be
    /// added.
    pub(super) fn with_handler(&self) -> Result<String, Failure> {
        let before = without_block(self.text)?;
        let table: Table = match before == self.text {
            true => self.table.clone(),
            false => Settings::parse(&before, Some(self.version))?.table,
        };
        let path = self.version.path();
        if let Some(there) = at(&table, &path) {
            return match there.get("runtime_type").and_then(Value::as_str) {
                Some(RUNTIME_TYPE) => Ok(self.text.to_owned()),
                other => Err(Failure::new(
                    FAILED,
                    format!(
                        "there is a handler {HANDLER:?} of another runtime, {}",
                        other.unwrap_or("which is not named")
                    ),
                )),
            };
        }
        let runtimes = match at(&table, &path[..4]) {
            Some(_) => Runtimes::Named,
            None => Runtimes::BuiltIn,
        };
        let block = block(self.version, runtimes);
        let impossible = |cause: String| {
            let name = path.join(".");
            Failure::new(FAILED, format!("the table {name} cannot be added"))
                .note(cause)
                .hint("write its parents as tables, [plugins.\"…\"], not as values {…}")
        };
        let parse = |text: &str| {
            let table = text.parse::<Table>();
            table.map_err(|error| impossible(error.to_string()))
        };
        let after = append(&before, &block);
        let mut expected = table;
        merge(&mut expected, parse(&block)?);
        if parse(&after)? != expected {
            return Err(impossible("it would change what else is there".into()));
        }
        Ok(after)
    }

    /// Whether they have the handler.
    pub(super) fn have_handler(&self) -> bool {
        at(&self.table, &self.version.path()).is_some()
    }
}

fn at<'t>(table: &'t Table, path: &[&str]) -> Option<&'t Value> {
    let (first, rest) = path.split_first()?;
    let mut value = table.get(*first)?;
    for key in rest {
        value = value.get(*key)?;
    }
    Some(value)
}

/// Adds the tables of `more`.
fn merge(table: &mut Table, more: Table) {
    for (key, value) in more {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(there)), Value::Table(more)) => merge(there, more),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests;
