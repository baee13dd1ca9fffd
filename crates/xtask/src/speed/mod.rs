//! `xtask speed`: starts of `virtc run` with a VM that waits, in turns with those from a template and
//! those that boot, one at a time and several at once; and a picture of where the time of each goes.

mod idle;
mod picture;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tempfile::TempDir;

use crate::bench::{PROGRAM, Running, make_root, timeline};
use crate::rows::Rows;

/// What ends a start that hangs, in seconds of virtc's `--timeout`.
const TIMEOUT: &str = "600";

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
    /// How many machines wait beside one another at the end
    #[arg(long, value_name = "N", default_value_t = 20)]
    idle: usize,
    /// Where pictures of the timelines are put, one for each kind of start
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
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
        for origin in ORIGINS {
            let name = origin.name();
            stage.ready(origin)?;
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
    if let Some(directory) = &options.pictures {
        for origin in ORIGINS {
            stage.draw(origin, options.runs, directory)?;
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
    let idle = match options.idle {
        0 => String::new(),
        count => format!("\n{}", idle::measure(&stage, count)?),
    };
    Ok((rows.text() + &text + &idle, ExitCode::SUCCESS))
}

/// Where the machine of a start comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Cache,
    Template,
    Boot,
}

/// In the order in which they take turns.
const ORIGINS: [Origin; 3] = [Origin::Cache, Origin::Template, Origin::Boot];

impl Origin {
    const fn name(self) -> &'static str {
        match self {
            Self::Cache => "with a VM that waits",
            Self::Template => "from a template",
            Self::Boot => "with a boot",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::Cache => "cache.svg",
            Self::Template => "template.svg",
            Self::Boot => "boot.svg",
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

    fn start(&self, origin: Origin) -> Result<Running> {
        let mut command = self.command(origin, "--quiet");
        Running::spawn(command.stdout(Stdio::piped()))
    }

    fn command(&self, origin: Origin, flag: &str) -> Command {
        self.command_for(origin, flag, &PROGRAM)
    }

    fn command_for(&self, origin: Origin, flag: &str, program: &[&str]) -> Command {
        let mut command = self.virtc(origin);
        command
            .args(["run", flag, "--timeout", TIMEOUT, "--rootfs"])
            .arg(self.root())
            .arg("--")
            .args(program)
            .stdin(Stdio::null());
        command
    }

    /// virtc with the stage's state and templates.
    fn virtc(&self, origin: Origin) -> Command {
        let mut command = Command::new(&self.virtc);
        command
            .current_dir("/")
            .env("VIRTC_FACTORY_AUTO", (origin != Origin::Boot).to_string())
            .env("VIRTC_FACTORY_DIR", self.work.path().join("templates"))
            .env("VIRTC_RUNTIME_ROOT", self.work.path().join("state"));
        command
    }

    /// Has a VM wait, for a start that takes one.
    fn ready(&self, origin: Origin) -> Result<()> {
        if origin != Origin::Cache {
            return Ok(());
        }
        let mut command = self.virtc(origin);
        command
            .args(["factory", "warm", "--number", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Running::spawn(&mut command)?.finish()
    }

    /// Draws the medians of so many timelines of one origin.
    fn draw(&self, origin: Origin, runs: usize, directory: &Path) -> Result<()> {
        let mut timelines = Vec::new();
        for _ in 0..runs {
            self.ready(origin)?;
            let output = self.command(origin, "--timeline").output()?;
            let text = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "virtc: {}: {text}", output.status);
            timelines.push(timeline::parse(&text));
        }
        let timelines: Vec<_> = timelines.iter().map(Vec::as_slice).collect();
        let rows = timeline::medians(&timelines);
        let title = format!("virtc run {}, ms (medians of {runs})", origin.name());
        let path = directory.join(origin.file());
        std::fs::write(&path, picture::svg(&title, &rows))
            .with_context(|| path.display().to_string())
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
