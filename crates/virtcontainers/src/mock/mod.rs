//! Sandboxes without a machine, for the unit tests of those who use this library.
//!
//! [`runtime`] gives a runtime on the mock driver. What the library does is all real: its state on
//! disk, operations, roll-back, calls of the agent, streams. In the place of a VM with its guest is
//! a *played* one: an agent in this process, at the socket at which that of a guest would be
//! reached. No right, program, or device of the host is needed.
//!
//! A [`Script`] says what the guests do: how [`Program`]s end and what they print, which
//! [`Call`] of the agent fails or hangs, when a machine ends. What is not said goes well, and a
//! program that is not known runs until a signal ends it.
//!
//! ```
//! use vc_types::{ContainerId, ExitStatus};
//! use virtcontainers::mock::{self, Program};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let root = tempfile::tempdir()?;
//! let (runtime, script) = mock::runtime(root.path())?;
//! script.program("build", Program::exiting(7));
//!
//! let container = mock::container("job", &["build"])?;
//! let sandbox = runtime.run_sandbox(mock::sandbox("ci-1", vec![container])?).await?;
//! let exit = sandbox.wait_process(&ContainerId::new("job")?).await?;
//! assert_eq!(exit.status, ExitStatus::Code(7));
//! sandbox.delete().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Files are not there: roots, volumes and scratch space are accepted and not looked at. Nor is
//! another process: one whose keeper has another pid can be listed, and not be reached.

mod agent;
mod calls;
mod config;
mod program;
mod script;
mod surroundings;

use std::path::Path;

pub use calls::Call;
pub use config::{container, sandbox};
pub use program::Program;
pub use script::{GuestScript, Script};
/// How a machine ends.
pub use vc_hypervisor::VmEnd;
/// What a machine does, see [`GuestScript::machine`].
pub use vc_hypervisor::mock::{Script as MachineScript, Step as MachineStep};

use crate::error::Result;
use crate::runtime::{Runtime, RuntimeOptions};

/// A runtime on the mock driver, with its state in `root`, and the script of its guests.
///
/// Paths of sockets have at most 107 bytes, so `root` must be short: a temporary directory.
///
/// # Errors
///
/// Those of [`Runtime::open`].
pub fn runtime(root: &Path) -> Result<(Runtime, Script)> {
    let script = Script::default();
    let runtime = Runtime::open(options(root, &script))?;
    Ok((runtime, script))
}

/// The options of a runtime on the mock driver, to be changed before it is opened.
///
/// ```
/// use virtcontainers::{Runtime, mock};
///
/// let root = tempfile::tempdir()?;
/// let script = mock::Script::default();
/// let mut options = mock::options(root.path(), &script);
/// options.config.limits.stop_container_ms = vc_config::Millis(10);
/// let runtime = Runtime::open(options)?;
/// # assert!(runtime.list_sandbox()?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn options(root: &Path, script: &Script) -> RuntimeOptions {
    let mut options = RuntimeOptions {
        driver: script.driver(),
        ..RuntimeOptions::default()
    };
    options.config.runtime.root = root.join("state");
    options.config.runtime.failures = root.join("failures");
    options
}
