//! What a shim finds on its machine: the configuration, and `virtc`, which does what takes a process
//! of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use virtcontainers::{HostNetwork, Runtime, RuntimeOptions, factory};

use crate::error::{Error, Result};
use crate::options::Options;

/// What the state root of containerd's sandboxes is called after the configured one.
const ROOT_SUFFIX: &str = "-containerd";

/// Opens the runtime of a namespace, with the options that containerd has for it, and what a
/// sandbox's annotations may change.
///
/// # Errors
///
/// [`Error::Config`] with all that is wrong, [`Error::Invalid`] for a namespace that cannot be a
/// directory and an option that is not allowed.
pub(crate) fn runtime(
    namespace: &str,
    options: &Options,
    annotations: &BTreeMap<String, String>,
    host_network: Option<Arc<HostNetwork>>,
) -> Result<Runtime> {
    let (mut sources, program) = options.sources(program())?;
    sources.annotations(annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let mut config = sources.load()?.config;
    config.runtime.root = state_root(&config.runtime.root, namespace)?;
    let factory = factory::configured(&config, false);
    Ok(Runtime::open(RuntimeOptions {
        factory,
        config,
        program,
        host_network,
        ..RuntimeOptions::default()
    })?)
}

/// Opens the runtime of a namespace to remove what a bundle's task has left. What is wrong with the
/// configuration by now is told, and keeps nothing from being removed.
///
/// # Errors
///
/// [`Error::Invalid`] for a namespace that cannot be a directory.
pub(crate) fn runtime_for_cleaning(namespace: &str, bundle: &Path) -> Result<Runtime> {
    let options = Options::of_bundle(bundle).unwrap_or_else(|error| {
        crate::say(&error);
        Options::default()
    });
    let (sources, program) = options.sources_for_cleaning(program());
    let (mut config, wrong) = sources.load_for_cleaning();
    if let Some(error) = wrong {
        crate::say(&Error::Cleaning { source: error });
    }
    config.runtime.root = state_root(&config.runtime.root, namespace)?;
    // No machine is made.
    Ok(Runtime::open(RuntimeOptions {
        config,
        program,
        ..RuntimeOptions::default()
    })?)
}

/// Each namespace has a state root: two may have containers of one name.
fn state_root(configured: &Path, namespace: &str) -> Result<PathBuf> {
    let plain = |one: char| one.is_ascii_alphanumeric() || "-_.".contains(one);
    if namespace.is_empty() || namespace.starts_with('.') || !namespace.chars().all(plain) {
        return Err(Error::Invalid(format!(
            "namespace {namespace:?} cannot be a directory"
        )));
    }
    let mut root = configured.as_os_str().to_owned();
    root.push(ROOT_SUFFIX);
    Ok(PathBuf::from(root).join(namespace))
}

/// The `virtc` that was installed with this program: it lies beside it.
fn program() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name("virtc"))
        .filter(|path| path.is_file());
    beside.unwrap_or_else(|| RuntimeOptions::default().program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_a_root_of_its_own() {
        let root = state_root(Path::new("/run/virtcontainers"), "k8s.io").unwrap();
        assert_eq!(root, Path::new("/run/virtcontainers-containerd/k8s.io"));
        for bad in ["", "..", "a/b", "a b", ".hidden"] {
            assert!(state_root(Path::new("/run/v"), bad).is_err(), "{bad:?}");
        }
    }
}
