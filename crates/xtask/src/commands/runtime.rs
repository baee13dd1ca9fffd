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

    /// Lets it seem to the runtime that it has so many containers: the state of one that runs is
    /// there under further names. Both runtimes keep it as `ROOT/ID/state.json`.
    pub(super) fn many(&self, id: &str, count: usize) -> Result<Many> {
        let state = self.root.join(id).join("state.json");
        let text = std::fs::read_to_string(&state).with_context(|| state.display().to_string())?;
        let mut many = Many(Vec::new());
        for number in 1..count {
            let name = format!("{id}{number}");
            let directory = self.root.join(&name);
            many.0.push(directory.clone());
            std::fs::create_dir(&directory)?;
            let own = text.replace(&format!("\"{id}\""), &format!("\"{name}\""));
            std::fs::write(directory.join("state.json"), own)?;
        }
        Ok(many)
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

/// Copies of a state, which go with this.
#[derive(Debug)]
pub(super) struct Many(Vec<PathBuf>);

impl Drop for Many {
    fn drop(&mut self) {
        for directory in &self.0 {
            // They are in a directory that is removed as a whole.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
