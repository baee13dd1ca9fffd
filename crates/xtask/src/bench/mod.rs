//! `xtask bench`: the clock points of a cold `virtc run`, the floors F1 and F2 of the same machine,
//! its memory and its streams, and whether the project's targets are met.
//!
//! What is compared is measured in turns, so that a noisy host disturbs both alike.

mod measure;
mod record;
mod report;
pub(crate) mod table;
pub(crate) mod target;
pub(crate) mod timeline;
mod virtc;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;

pub(crate) use measure::make_root;
use target::Target;
pub(crate) use virtc::PROGRAM;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often a start and each floor are measured, in turns
    #[arg(long, value_name = "N", default_value_t = 10)]
    runs: usize,
    /// How often the streams are measured, in turns with those of the bare VM
    #[arg(long, value_name = "N", default_value_t = 3)]
    stream_runs: usize,
    /// How much is streamed each way
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    stream_mib: u64,
    /// The virtc to measure; it finds the guest by itself
    #[arg(long, value_name = "FILE")]
    virtc: PathBuf,
    /// The floor's init, in C
    #[arg(long, value_name = "FILE", default_value = "bench/floor/init.c")]
    init: PathBuf,
    /// Where each measurement is kept, as lines of JSON in a file named after the time
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    records: PathBuf,
    /// Print the tables for a page
    #[arg(long)]
    markdown: bool,
    /// Fail when a target is missed
    #[arg(long)]
    gate: bool,
}

/// Measures everything; returns the text and the exit code.
pub(crate) fn run(options: &Options) -> Result<(String, ExitCode)> {
    ensure!(
        options.runs > 0 && options.stream_runs > 0 && options.stream_mib > 0,
        "nothing is to be measured"
    );
    let mut record = record::Record::create(&options.records)?;
    let measured = measure::measure(options, &mut record)?;
    let targets = target::targets(&measured.figures()?);
    record.targets(&targets)?;
    let text = report::text(&measured, &targets, &record, options.markdown)?;
    let met = targets.iter().all(Target::is_met);
    let code = if options.gate && !met {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    };
    Ok((text, code))
}
