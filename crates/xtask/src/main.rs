//! Work on the tree itself.
//!
//! - `xtask floor`: what a VM costs when nothing of virtc is in it
#![forbid(unsafe_code)]

mod floor;
mod median;

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
    /// Measure F1 (a bare VM to ready) and F2 (F1, a root and a static program to its first byte)
    Floor(floor::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Floor(options) => floor::run(&options),
    };
    match result.and_then(|text| Ok(io::stdout().write_all(text.as_bytes())?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(io::stderr(), "xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
