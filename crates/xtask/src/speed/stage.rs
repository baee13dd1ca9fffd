//! What starts are measured with: one root, and virtc with a place of its own.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::waiting::Waiting;
use super::{Origin, picture};
use crate::bench::{PROGRAM, make_root, timeline};
use crate::floor::{Floor, Machine};
use crate::rows::Rows;
use crate::running::Running;

/// What ends a start that hangs, in seconds of virtc's `--timeout`.
const TIMEOUT: &str = "600";

/// The root's name in what is shared with a bare clone. In a sandbox it lies as deep.
const ROOT: &str = "root";

/// A root with one program, and a place for the template.
pub(super) struct Stage {
    virtc: PathBuf,
    /// The directory of the guest with the distribution's kernel.
    distribution: Option<PathBuf>,
    work: TempDir,
}

impl Stage {
    pub(super) fn make(virtc: &Path, distribution: Option<&Path>) -> Result<Self> {
        let absolute =
            |path: &Path| std::fs::canonicalize(path).with_context(|| path.display().to_string());
        let stage = Self {
            virtc: absolute(virtc)?,
            distribution: distribution.map(absolute).transpose()?,
            // Where templates and states are on hosts: in memory.
            work: tempfile::tempdir_in("/dev/shm")?,
        };
        make_root(&stage.root())?;
        Ok(stage)
    }

    /// Where all that is measured with lies.
    pub(super) fn work(&self) -> &Path {
        self.work.path()
    }

    /// Nothing but the root is in it.
    fn shared(&self) -> PathBuf {
        self.work.path().join("shared")
    }

    fn root(&self) -> PathBuf {
        self.shared().join(ROOT)
    }

    /// The floor of the machine that a clone of ours has.
    pub(super) fn floor(&self, init: &Path) -> Result<Floor> {
        let machine = self.machine(Origin::Template)?;
        Floor::make(machine, init, &self.shared(), ROOT, self.work.path())
    }

    /// How a machine of ours is made, looked at while it waits.
    pub(super) fn machine(&self, origin: Origin) -> Result<Machine> {
        let waiting = Waiting::start(self, origin)?;
        let machine = waiting.machine()?;
        waiting.end()?;
        Ok(machine)
    }

    /// Measures one start.
    pub(super) fn measure(&self, origin: Origin, rows: &mut Rows) -> Result<()> {
        self.ready(origin)?;
        let began = Instant::now();
        let mut start = self.start(origin)?;
        let stdout = start.0.stdout.as_mut().context("no stdout")?;
        stdout
            .read_exact(&mut [0])
            .context("virtc printed nothing")?;
        rows.add(&origin.output(), began.elapsed());
        start.finish().context("virtc")?;
        rows.add(&origin.exit(), began.elapsed());
        Ok(())
    }

    fn start(&self, origin: Origin) -> Result<Running> {
        let mut command = self.command(origin, "--quiet");
        Running::spawn(command.stdout(Stdio::piped()))
    }

    fn command(&self, origin: Origin, flag: &str) -> Command {
        self.command_for(origin, flag, &PROGRAM)
    }

    pub(super) fn command_for(&self, origin: Origin, flag: &str, program: &[&str]) -> Command {
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
    pub(super) fn virtc(&self, origin: Origin) -> Command {
        let mut command = Command::new(&self.virtc);
        let faster = matches!(origin, Origin::Cache | Origin::Template).to_string();
        let guest = self.distribution.as_deref();
        if let Some(guest) = guest.filter(|_| origin == Origin::DistributionBoot) {
            command.env("VIRTC_GUEST_ASSETS", guest);
        }
        command
            .current_dir("/")
            .env("VIRTC_FACTORY_AUTO", &faster)
            .env("VIRTC_FACTORY_ENABLE_TEMPLATE", &faster)
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
            .args(["factory", "warm", "--rootfs", "--number", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Running::spawn(&mut command)?
            .finish()
            .context("virtc factory warm")
    }

    /// Draws the medians of so many timelines of one origin into a file.
    pub(super) fn draw(&self, origin: Origin, runs: usize, path: &Path) -> Result<()> {
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
        std::fs::write(path, picture::svg(&title, &rows))
            .with_context(|| path.display().to_string())
    }

    pub(super) fn at_once(&self, count: usize) -> Result<Duration> {
        let began = Instant::now();
        let started: Result<Vec<_>> = (0..count).map(|_| self.start(Origin::Template)).collect();
        for start in started? {
            start.finish().context("virtc")?;
        }
        Ok(began.elapsed())
    }

    /// Starts a second from a template, where so many are always under way and each is followed by others.
    pub(super) fn sustained(&self, at_once: usize, each: usize) -> Result<f64> {
        let began = Instant::now();
        std::thread::scope(|scope| {
            let one_after_another = || (0..each).try_for_each(|_| self.at_once(1).map(drop));
            let all: Vec<_> = (0..at_once)
                .map(|_| scope.spawn(one_after_another))
                .collect();
            all.into_iter().try_for_each(|one| {
                let ended = one.join();
                ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })?;
        Ok((at_once * each) as f64 / began.elapsed().as_secs_f64())
    }
}
