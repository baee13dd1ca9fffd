//! The commands, a file each.

pub(crate) mod check;
pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod factory;
pub(crate) mod features;
pub(crate) mod gc;
pub(crate) mod generate;
pub(crate) mod guest;
pub(crate) mod install;
pub(crate) mod internal;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod network;
mod owner;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod update;
pub(crate) mod version;

use std::collections::BTreeMap;
use std::path::PathBuf;

use vc_config::{Loaded, Sources};
use vc_types::{ContainerId, ContainerState};
use virtcontainers::factory::configured;
use virtcontainers::{Runtime, RuntimeOptions, SandboxHandle};

use crate::cli::GlobalArgs;
use crate::error::{FAILED, Failure};

/// What a command that has done its work returns.
pub(crate) type Done = Result<std::process::ExitCode, Failure>;

/// The configuration that the global flags name, with further flags: key, flag and value.
///
/// # Errors
///
/// All that is wrong with it.
pub(crate) fn load(global: &GlobalArgs, flags: &[(&str, &str, String)]) -> Result<Loaded, Failure> {
    let mut sources = sources(global);
    for (key, flag, value) in flags {
        sources.flag(key, flag, value.clone());
    }
    Ok(sources.load()?)
}

/// The configuration with what the annotations of a bundle set.
///
/// # Errors
///
/// All that is wrong with it, and the annotations that are not allowed.
pub(crate) fn load_annotated(
    global: &GlobalArgs,
    annotations: &BTreeMap<String, String>,
) -> Result<Loaded, Failure> {
    let mut sources = sources(global);
    sources.annotations(annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    Ok(sources.load()?)
}

fn sources(global: &GlobalArgs) -> Sources {
    let mut sources = Sources::of_process(global.config.as_deref());
    if let Some(root) = &global.root {
        sources.flag("runtime.root", "--root", root.display().to_string());
    }
    sources
}

/// The runtime that the global flags name.
///
/// # Errors
///
/// All that is wrong with the configuration.
pub(crate) fn runtime(global: &GlobalArgs) -> Result<Runtime, Failure> {
    let loaded = load(global, &[])?;
    Ok(Runtime::open(RuntimeOptions {
        factory: configured(&loaded.config, false),
        config: loaded.config,
        program: own_program(),
        ..RuntimeOptions::default()
    })?)
}

/// The container of this name.
///
/// # Errors
///
/// Wrong usage, for what cannot be a name.
pub(crate) fn container(name: &str) -> Result<ContainerId, Failure> {
    ContainerId::new(name).map_err(Failure::usage)
}

/// The OCI specification's word for a container's state.
pub(crate) fn oci_status(state: ContainerState, creating: bool) -> &'static str {
    match state {
        _ if creating => "creating",
        ContainerState::Ready => "created",
        state => state.name(),
    }
}

/// Fetches the sandbox that has the container.
///
/// # Errors
///
/// As [`Runtime::find_container`] and [`Runtime::fetch_container`].
pub(crate) async fn fetch(
    runtime: &Runtime,
    container: &ContainerId,
) -> Result<SandboxHandle, virtcontainers::Error> {
    let sandbox = runtime.find_container(container)?;
    runtime.fetch_container(&sandbox, container).await
}

/// Runs what waits for a guest, on this thread.
///
/// # Errors
///
/// When the system gives no event queue.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::plain(FAILED, &error))?;
    let done = executor.block_on(work);
    // A thread that reads the host's stdin may wait for ever.
    executor.shutdown_background();
    Ok(done)
}

/// This program, which is also every launcher step and the vsock device process.
pub(crate) fn own_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}
