//! What a shim finds on its machine: the configuration, and `virtc`, which does what takes a process
//! of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vc_config::Sources;
use virtcontainers::{HostNetwork, Runtime, RuntimeOptions, factory};

use crate::error::{Error, Result};

/// What the state root of containerd's sandboxes is called after the configured one.
const ROOT_SUFFIX: &str = "-containerd";

/// Opens the runtime of a namespace, with what a sandbox's annotations may change.
///
/// # Errors
///
/// [`Error::Config`] with all that is wrong, [`Error::Invalid`] for a namespace that cannot be a
/// directory.
pub(crate) fn runtime(
    namespace: &str,
    annotations: &BTreeMap<String, String>,
    host_network: Option<Arc<HostNetwork>>,
) -> Result<Runtime> {
    let mut sources = Sources::of_process(None);
    sources.annotations(annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let mut config = sources.load()?.config;
    config.runtime.root = state_root(&config.runtime.root, namespace)?;
    let factory = factory::configured(&config, false).map_err(virtcontainers::Error::from)?;
    Ok(Runtime::open(RuntimeOptions {
        factory,
        config,
        program: program(),
        host_network,
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
