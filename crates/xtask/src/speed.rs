//! `xtask speed`: starts of `virtc run` with a VM that waits, in turns with those from a template and
//! those that boot, one at a time; and several at once.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tempfile::TempDir;

use crate::bench::{PROGRAM, Running, make_root};
use crate::rows::Rows;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each start is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 20)]
    runs: usize,
    /// How many start at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    at_once: usize,
    /// How often so many do
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// The virtc to measure; it finds the guest by itself
    #[arg(long, value_name = "FILE")]
    virtc: PathBuf,
}

/// Measures everything; returns the table.
pub(crate) fn run(options: &Options) -> Result<(String, ExitCode)> {
    ensure!(
        options.runs > 0 && options.at_once > 0,
        "nothing is to be measured"
    );
    let stage = Stage::make(&options.virtc)?;
    let mut rows = Rows::default();
    let began = Instant::now();
    stage.start(Origin::Template)?.finish()?;
    rows.add("the first run, which makes the template", began.elapsed());
    for _ in 0..options.runs {
        for origin in [Origin::Cache, Origin::Template, Origin::Boot] {
            let name = origin.name();
            if origin == Origin::Cache {
                stage.warm()?;
            }
            let began = Instant::now();
            let mut start = stage.start(origin)?;
            let stdout = start.0.stdout.as_mut().context("no stdout")?;
            stdout
                .read_exact(&mut [0])
                .context("virtc printed nothing")?;
            rows.add(&format!("{name}: exec to output"), began.elapsed());
            start.finish()?;
            rows.add(&format!("{name}: exec to exit"), began.elapsed());
        }
    }
    let mut text = String::new();
    for _ in 0..options.rounds {
        let took = stage.at_once(options.at_once)?;
        rows.add(
            &format!(
                "{} at once from a template, to the last exit",
                options.at_once
            ),
            took,
        );
        let a_second = options.at_once as f64 / took.as_secs_f64();
        text.push_str(&format!("{a_second:.1} starts a second\n"));
    }
    Ok((rows.text() + &text, ExitCode::SUCCESS))
}

/// Where the VM of a start comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Cache,
    Template,
    Boot,
}

impl Origin {
    const fn name(self) -> &'static str {
        match self {
            Self::Cache => "with a VM that waits",
            Self::Template => "from a template",
            Self::Boot => "with a boot",
        }
    }
}

/// A root with one program, and a place for the template.
struct Stage {
    virtc: PathBuf,
    work: TempDir,
}

impl Stage {
    fn make(virtc: &Path) -> Result<Self> {
        let stage = Self {
            virtc: std::fs::canonicalize(virtc).with_context(|| virtc.display().to_string())?,
            // Where templates and states are on hosts: in memory.
            work: tempfile::tempdir_in("/dev/shm")?,
        };
        make_root(&stage.root())?;
        Ok(stage)
    }

    fn root(&self) -> PathBuf {
        self.work.path().join("root")
    }

    fn command(&self, origin: Origin) -> Command {
        let mut command = Command::new(&self.virtc);
        command
            .current_dir("/")
            .env("VIRTC_FACTORY_AUTO", (origin != Origin::Boot).to_string())
            .env("VIRTC_FACTORY_DIR", self.work.path().join("templates"))
            .env("VIRTC_RUNTIME_ROOT", self.work.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    fn start(&self, origin: Origin) -> Result<Running> {
        let mut command = self.command(origin);
        command
            .args(["run", "--quiet", "--timeout", "120", "--rootfs"])
            .arg(self.root())
            .arg("--")
            .args(PROGRAM);
        Running::spawn(&mut command)
    }

    /// Has one VM wait.
    fn warm(&self) -> Result<()> {
        let mut command = self.command(Origin::Cache);
        command.args(["factory", "warm", "--number", "1"]);
        Running::spawn(&mut command)?.finish()
    }

    fn at_once(&self, count: usize) -> Result<Duration> {
        let began = Instant::now();
        let started: Result<Vec<_>> = (0..count).map(|_| self.start(Origin::Template)).collect();
        for start in started? {
            start.finish()?;
        }
        Ok(began.elapsed())
    }
}
