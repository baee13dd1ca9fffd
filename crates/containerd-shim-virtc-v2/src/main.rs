//! The containerd shim: runtime `io.containerd.virtc.v2`.
//!
//! containerd calls this program for each task with the action `start`, which answers with the
//! socket of the process that serves the task: a new one for a container with a machine of its own
//! and for a pod's first, the pod's for the others. That process keeps the machine, as
//! `virtcontainers` has it, and tells containerd what happens. The action `delete` cleans up after
//! one that was killed.

mod action;
mod bootstrap;
mod bundle;
mod cli;
mod disk;
mod error;
mod io;
mod log;
mod options;
mod pod;
mod pod_config;
mod process;
mod publisher;
mod rootfs;
mod sandbox;
mod service;
mod socket;
mod stand_in;
mod stats;
mod surroundings;
mod undoing;

use std::process::ExitCode;

use error::Error;

fn main() -> ExitCode {
    match cli::Flags::parse(std::env::args().skip(1)).and_then(|flags| action::run(&flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The one is read of an action, the other of a process that serves.
            say(&error);
            tracing::error!("{}", error.chain());
            ExitCode::FAILURE
        }
    }
}

/// containerd shows what a shim that fails has written to stderr.
fn say(error: &Error) {
    use std::io::Write;
    let _ = writeln!(
        std::io::stderr(),
        "containerd-shim-virtc-v2: {}",
        error.chain()
    );
}
