//! `xtask commands`: what the commands of the OCI command line cost, and `exec` beside runc's.

pub(crate) mod bundle;
mod runtime;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::runtime::Runtime;
use crate::rows::Rows;

/// The container that is measured.
const ID: &str = "measured";

/// Of how many containers a list is measured, after that of one.
const LISTED: [usize; 2] = [100, 1000];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many containers are made, started and removed
    #[arg(long, value_name = "N", default_value_t = 10)]
    runs: usize,
    /// How often commands of a running container are measured, in turns with runc's
    #[arg(long, value_name = "N", default_value_t = 50)]
    execs: usize,
    /// The virtc to measure
    #[arg(long, value_name = "FILE")]
    virtc: PathBuf,
    /// The runtime beside it; nothing is compared where it is not there
    #[arg(long, value_name = "FILE", default_value = "/usr/sbin/runc")]
    runc: PathBuf,
}

/// Measures everything; returns the table.
pub(crate) fn run(options: &Options) -> Result<(String, ExitCode)> {
    ensure!(
        options.runs > 0 && options.execs > 0,
        "nothing is to be measured"
    );
    // Where states are kept on hosts: in memory. Elsewhere each change of one waits for a disk.
    let work = tempfile::tempdir_in("/dev/shm")?;
    let bundle = bundle::make(work.path())?;
    let program =
        |path: &PathBuf| std::fs::canonicalize(path).with_context(|| path.display().to_string());
    let virtc = Runtime::new(program(&options.virtc)?, work.path().join("virtc"));
    let runc = program(&options.runc)
        .ok()
        .map(|runc| Runtime::new(runc, work.path().join("runc")));

    let mut rows = Rows::default();
    for _ in 0..options.runs {
        rows.add("create", virtc.create(&bundle, ID)?);
        rows.add("start", virtc.timed(&["start", ID])?);
        rows.add("kill", virtc.timed(&["kill", ID, "KILL"])?);
        rows.add(
            "kill until everything is gone",
            virtc.gone_after_kill(&bundle, ID)?,
        );
    }
    virtc.create(&bundle, ID)?;
    let running = Running::start(&virtc)?;
    let other = runc.as_ref().map(|runc| {
        runc.create(&bundle, ID)?;
        Running::start(runc)
    });
    let other = other.transpose()?;
    for _ in 0..options.execs {
        for (runtime, name) in [(Some(&running), "virtc"), (other.as_ref(), "runc")] {
            let Some(Running(runtime)) = runtime else {
                continue;
            };
            let exec = ["exec", ID, "/bin/busybox", "true"];
            rows.add(&format!("{name} exec true"), runtime.timed(&exec)?);
            rows.add(&format!("{name} state"), runtime.timed(&["state", ID])?);
            rows.add(
                &format!("{name} list, 1 container"),
                runtime.timed(&["list"])?,
            );
        }
    }
    for count in LISTED {
        for (runtime, name) in [(Some(&running), "virtc"), (other.as_ref(), "runc")] {
            let Some(Running(runtime)) = runtime else {
                continue;
            };
            let _many = runtime.many(ID, count)?;
            for _ in 0..options.execs {
                let took = runtime.timed(&["list"])?;
                rows.add(&format!("{name} list, {count} containers"), took);
            }
        }
    }
    Ok((rows.text(), ExitCode::SUCCESS))
}

/// A container that runs, and is removed with this.
struct Running<'a>(&'a Runtime);

impl<'a> Running<'a> {
    fn start(runtime: &'a Runtime) -> Result<Self> {
        let running = Self(runtime);
        runtime.timed(&["start", ID])?;
        Ok(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // What stays is in a directory of its own, and its processes are named in the error.
        let _ = self.0.timed(&["delete", "--force", ID]);
    }
}
