//! The commands, a file each.

pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod delete;
pub(crate) mod gc;
pub(crate) mod generate;
pub(crate) mod internal;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod version;

use std::path::PathBuf;

use vc_config::{Loaded, Sources};
use virtcontainers::{Runtime, RuntimeOptions};

use crate::cli::GlobalArgs;
use crate::error::Failure;

/// What a command that has done its work returns.
pub(crate) type Done = Result<std::process::ExitCode, Failure>;

/// The configuration that the global flags name, with further flags: key, flag and value.
///
/// # Errors
///
/// All that is wrong with it.
pub(crate) fn load(global: &GlobalArgs, flags: &[(&str, &str, String)]) -> Result<Loaded, Failure> {
    let mut sources = Sources::of_process(global.config.as_deref());
    if let Some(root) = &global.root {
        sources.flag("runtime.root", "--root", root.display().to_string());
    }
    for (key, flag, value) in flags {
        sources.flag(key, flag, value.clone());
    }
    Ok(sources.load()?)
}

/// The runtime that the global flags name.
///
/// # Errors
///
/// All that is wrong with the configuration.
pub(crate) fn runtime(global: &GlobalArgs) -> Result<Runtime, Failure> {
    let loaded = load(global, &[])?;
    Ok(Runtime::open(RuntimeOptions {
        config: loaded.config,
        program: own_program(),
    })?)
}

/// This program, which is also every launcher step and the vsock device process.
pub(crate) fn own_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}
