use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a container may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at a process that is to end. What is measured is tens of milliseconds.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// An OCI runtime with a state root of its own.
#[derive(Debug)]
pub(super) struct Runtime {
    program: PathBuf,
    root: PathBuf,
}

impl Runtime {
    pub(super) fn new(program: PathBuf, root: PathBuf) -> Self {
        Self { program, root }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(&self.root)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Runs a command to its end, and says how long it took.
    pub(super) fn timed(&self, args: &[&str]) -> Result<Duration> {
        let began = Instant::now();
        let status = self.command(args).status();
        let took = began.elapsed();
        let status = status.with_context(|| self.program.display().to_string())?;
        ensure!(
            status.success(),
            "{} {args:?}: {status}",
            self.program.display()
        );
        Ok(took)
    }

    /// Makes a container; its process waits.
    pub(super) fn create(&self, bundle: &Path, id: &str) -> Result<Duration> {
        let bundle = bundle.display().to_string();
        let pid = self.pid_file().display().to_string();
        self.timed(&["create", "--bundle", &bundle, "--pid-file", &pid, id])
    }

    /// Removes the one that was killed, makes another, and measures from its kill until the process
    /// that stands for it, with its machine, and its state are gone.
    pub(super) fn gone_after_kill(&self, bundle: &Path, id: &str) -> Result<Duration> {
        self.wait_for_end()?;
        self.timed(&["delete", id])?;
        self.create(bundle, id)?;
        self.timed(&["start", id])?;
        let began = Instant::now();
        self.timed(&["kill", id, "KILL"])?;
        self.wait_for_end()?;
        self.timed(&["delete", id])?;
        Ok(began.elapsed())
    }

    fn pid_file(&self) -> PathBuf {
        self.root.with_extension("pid")
    }

    fn wait_for_end(&self) -> Result<()> {
        let pid = std::fs::read_to_string(self.pid_file())?;
        let stat = PathBuf::from("/proc").join(pid.trim()).join("stat");
        let end = Instant::now() + GONE_LIMIT;
        // Whoever reaps it is not us.
        let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() {
            if Instant::now() > end {
                bail!("process {} does not end", pid.trim());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}
