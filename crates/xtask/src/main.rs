//! Work on the tree itself.
//!
//! - `xtask commands`: what the commands of the OCI command line cost, `exec` beside runc's
//! - `xtask containerd`: what a task costs under containerd, beside runc's shim and `virtc run`
//! - `xtask speed`: what a start with a VM that waits and one from a template cost, beside a bare clone and one
//!   that boots
//! - `xtask network`: what a machine's network reaches, beside that of a VM with nothing of virtc in it
//! - `xtask bench`: what a start of `virtc run` costs, beside a VM with nothing of virtc in it
#![forbid(unsafe_code)]

mod bench;
mod commands;
mod containerd;
mod floor;
mod median;
mod network;
mod process;
mod rows;
mod running;
mod speed;
mod stream;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure `virtc run` and, in turn with it, the floors that its targets are ratios to
    Bench(bench::Options),
    /// Measure the network of a machine and, in turn with it, that of the bare VM
    Network(network::Options),
    /// Measure the commands of the OCI command line
    Commands(commands::Options),
    /// Measure tasks of containerd, beside those of runc's shim
    Containerd(containerd::Options),
    /// Measure starts with VMs that wait, from a template and, in turn with them, bare clones and those that boot
    Speed(speed::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Bench(options) => bench::run(&options),
        Command::Network(options) => network::run(&options),
        Command::Commands(options) => commands::run(&options),
        Command::Containerd(options) => containerd::run(&options),
        Command::Speed(options) => speed::run(&options),
    };
    let printed = result.and_then(|(text, code)| {
        io::stdout().write_all(text.as_bytes())?;
        Ok(code)
    });
    printed.unwrap_or_else(|error| {
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(io::stderr(), "xtask: {error:#}");
        ExitCode::FAILURE
    })
}
