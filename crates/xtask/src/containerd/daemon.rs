use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::process;
use crate::process::Process;

/// How long the daemon may take to answer, and a task to end.
const LIMIT: Duration = Duration::from_secs(20);

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A containerd of the measurement's own; it ends with this.
#[derive(Debug)]
pub(super) struct Daemon {
    directory: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts it below `directory`, with the shim among `programs`, and waits until it answers.
    pub(super) fn start(directory: &Path, programs: &Path) -> Result<Self> {
        let at = |name: &str| directory.join(name);
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            at("d"),
            at("s"),
            at("sock")
        );
        fs::write(at("config.toml"), config)?;
        let log = File::create(at("log"))?;
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
        let child = Command::new("containerd")
            .arg("--config")
            .arg(at("config.toml"))
            .env("PATH", path)
            .env("VIRTC_RUNTIME_ROOT", at("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("containerd is needed")?;
        let daemon = Self {
            directory: directory.to_owned(),
            child,
        };
        let end = Instant::now() + LIMIT;
        while !daemon.ctr(&["version"]).output()?.status.success() {
            ensure!(Instant::now() < end, "containerd does not answer");
            sleep(LOOK_AGAIN);
        }
        Ok(daemon)
    }

    /// Its client.
    pub(super) fn ctr(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.directory.join("sock"))
            .args(args);
        command
    }

    /// The words of a task's line of `ctr task ls`.
    fn listed(&self, id: &str) -> Result<Vec<String>> {
        let list = String::from_utf8(self.ctr(&["task", "ls"]).output()?.stdout)?;
        let mut lines = list
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned));
        lines
            .find_map(|words| {
                let words: Vec<String> = words.collect();
                (words.first().map(String::as_str) == Some(id)).then_some(words)
            })
            .with_context(|| format!("there is no task {id}"))
    }

    /// The shim of a task: its process, or the parent of that.
    pub(super) fn shim(&self, id: &str) -> Result<Process> {
        let words = self.listed(id)?;
        let pid: u32 = words.get(1).context("a pid")?.parse()?;
        let own = process(pid)?;
        if own.name().starts_with("containerd-shim") {
            return Ok(own);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, rest) = stat.rsplit_once(')').context("a process has a name")?;
        process(
            rest.split_ascii_whitespace()
                .nth(1)
                .context("a parent")?
                .parse()?,
        )
    }

    /// Waits until a task has stopped.
    pub(super) fn wait_for_end(&self, id: &str) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while self.listed(id)?.get(2).map(String::as_str) != Some("STOPPED") {
            ensure!(Instant::now() < end, "task {id} does not end");
            sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
