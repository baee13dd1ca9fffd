//! What is read of a bundle before its root is mounted.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use virtcontainers::PodRole;

use crate::error::{Error, Result};

/// Where a bundle's root is mounted.
pub(crate) fn root_of(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}

/// The specification of a bundle.
///
/// # Errors
///
/// When `config.json` cannot be read.
pub(crate) fn spec_of(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let read = std::fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
    read.map_err(|source| Error::System {
        attempt: format!("read {}", path.display()),
        source,
    })
}

/// The same, of one that may be a sandbox's without a specification: it asks for nothing then.
///
/// # Errors
///
/// Those of [`spec_of`] but for a missing `config.json`.
pub(crate) fn spec_if_any(bundle: &Path) -> Result<Spec> {
    match spec_of(bundle) {
        Err(Error::System { source, .. }) if source.kind() == ErrorKind::NotFound => {
            let mut spec = Spec::default();
            spec.set_annotations(None).set_linux(None);
            Ok(spec)
        }
        read => read,
    }
}

/// The sandbox that a container belongs to: its own, or the one that it is to join.
///
/// # Errors
///
/// When the specification names something that cannot be one.
pub(crate) fn sandbox_of(spec: &Spec, id: &str) -> Result<String> {
    Ok(match PodRole::of(spec)? {
        PodRole::Sandbox => id.to_owned(),
        PodRole::Member(sandbox) => sandbox.to_string(),
    })
}

/// What whoever made a bundle noted about it.
pub(crate) fn annotations_of(spec: &Spec) -> BTreeMap<String, String> {
    let annotations = spec.annotations().clone().unwrap_or_default();
    annotations.into_iter().collect()
}
