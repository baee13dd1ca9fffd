//! A TOML document as a list of paths, values and lines.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One value of a document.
pub(crate) struct Entry {
    /// Its keys, joined by dots.
    pub(crate) path: String,
    pub(crate) value: toml::Value,
    /// From 1.
    pub(crate) line: usize,
}

/// Why a document cannot be read.
pub(crate) struct ParseError {
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// All values of a document, in its order. Tables are entered, lists are values.
pub(crate) fn entries(text: &str) -> Result<Vec<Entry>, ParseError> {
    let failed = |error: toml::de::Error| ParseError {
        line: error.span().map_or(1, |span| line(text, span.start)),
        message: error.message().to_owned(),
    };
    let lines = DeTable::parse(text).map_err(failed)?;
    let values: toml::Table = toml::from_str(text).map_err(failed)?;
    let mut entries = Vec::new();
    collect(text, "", lines.get_ref(), &values, &mut entries);
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn collect(
    text: &str,
    prefix: &str,
    lines: &DeTable<'_>,
    values: &toml::Table,
    entries: &mut Vec<Entry>,
) {
    for (key, spanned) in lines {
        let name: &str = key.get_ref();
        let path = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}.{name}")
        };
        match (table(spanned), values.get(name)) {
            (Some(inner), Some(toml::Value::Table(values))) if !inner.is_empty() => {
                collect(text, &path, inner, values, entries);
            }
            // An empty table says nothing that could be wrong but its name.
            (_, Some(toml::Value::Table(_))) if is_section(&path) => {}
            (_, Some(value)) => {
                let line = line(text, key.span().start);
                entries.push(Entry {
                    path,
                    value: value.clone(),
                    line,
                });
            }
            (_, None) => {}
        }
    }
}

fn table<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> Option<&'a DeTable<'i>> {
    match value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

/// Whether keys of the configuration lie below this path.
fn is_section(path: &str) -> bool {
    let below = format!("{path}.");
    let known = crate::config::Config::keys();
    known.iter().any(|key| key.path().starts_with(&below))
}

fn line(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}
