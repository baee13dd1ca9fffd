//! The OCI specification as a message, and back.
//!
//! Both sides need it: the host sends the specification, the agent gives it to its container
//! library. A message's plain fields cannot be absent, so a specification comes back in a normal
//! form: an empty list, text or map, and a number for which zero means "not set", come back as
//! absent; flags and `oomScoreAdj` come back as set. What the message has no field for is refused
//! by name, never dropped.
//!
//! ```
//! use agent_protocol::oci_convert::{spec_from_message, spec_to_message};
//! use oci_spec::runtime::Spec;
//!
//! let spec = Spec::default();
//! let message = spec_to_message(&spec)?;
//! assert_eq!(message.Version, spec.version().as_str());
//! assert_eq!(spec_from_message(&message)?.mounts(), spec.mounts());
//! # Ok::<(), agent_protocol::Error>(())
//! ```

mod linux;
mod process;
mod resources;
mod scheduling;
mod seccomp;
mod spec;

pub use process::{process_from_message, process_to_message};
pub use resources::{resources_from_message, resources_to_message};
pub use spec::{spec_from_message, spec_to_message};

use std::collections::HashMap;
use std::fmt::{Debug, Display};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{Error, Result};

/// The error for a value that cannot be carried.
fn refuse(field: &'static str, value: impl Display) -> Error {
    Error::Specification {
        field,
        value: value.to_string(),
    }
}

/// Refuses a value that there is no field for.
fn refuse_if_set<T: Debug>(field: &'static str, value: &Option<T>) -> Result<()> {
    value.as_ref().map_or(Ok(()), |value| {
        Err(refuse(field, format_args!("{value:?}")))
    })
}

fn parse<T: FromStr>(field: &'static str, text: &str) -> Result<T> {
    text.parse().map_err(|_| refuse(field, text))
}

fn parse_all<T: FromStr>(field: &'static str, texts: &[String]) -> Result<Vec<T>> {
    texts.iter().map(|text| parse(field, text)).collect()
}

/// Narrows or widens a number.
fn number<A: TryInto<B> + Display + Copy, B>(field: &'static str, value: A) -> Result<B> {
    value.try_into().map_err(|_| refuse(field, value))
}

/// A path as text: a message can hold no other.
fn path_text(field: &'static str, path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| refuse(field, path.display()))
}

fn optional_path_text(field: &'static str, path: Option<&PathBuf>) -> Result<String> {
    path.map_or(Ok(String::new()), |path| path_text(field, path))
}

/// The value, unless it is what an absent one looks like in a message.
fn set<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

fn list<T: Clone>(values: &[T]) -> Option<Vec<T>> {
    (!values.is_empty()).then(|| values.to_vec())
}

fn map(values: &HashMap<String, String>) -> Option<HashMap<String, String>> {
    (!values.is_empty()).then(|| values.clone())
}

fn convert_all<A, B>(values: &[A], convert: impl Fn(&A) -> Result<B>) -> Result<Option<Vec<B>>> {
    let values: Vec<B> = values.iter().map(convert).collect::<Result<_>>()?;
    Ok((!values.is_empty()).then_some(values))
}

fn convert_list<A, B>(
    values: Option<&Vec<A>>,
    convert: impl Fn(&A) -> Result<B>,
) -> Result<Vec<B>> {
    values.into_iter().flatten().map(convert).collect()
}

#[cfg(test)]
mod tests;
