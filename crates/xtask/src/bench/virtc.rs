//! `virtc run`, as its caller sees it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::timeline::{self, Row};
use crate::process::Process;
use crate::running::Running;
use crate::stream::{Rates, receive, send};

/// The one program of the root.
pub(super) const BUSYBOX: &str = "/bin/busybox";

/// What a start runs: a static program that prints a line and ends.
pub(crate) const PROGRAM: [&str; 3] = [BUSYBOX, "echo", "hello"];

/// Where the virtc and the root are.
#[derive(Debug)]
pub(super) struct Virtc {
    pub(super) program: PathBuf,
    pub(super) root: PathBuf,
}

/// One start, from before its process to after it.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) rows: Vec<Row>,
    pub(super) output: Duration,
    pub(super) exit: Duration,
}

impl Virtc {
    /// A cold start of a program that ends at once.
    pub(super) fn start(&self) -> Result<Start> {
        let mut command = self.command(&["--timeline"], &PROGRAM);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let begin = Instant::now();
        let mut child = Running::spawn(&mut command)?;
        let mut stdout = child.0.stdout.take().context("no stdout")?;
        stdout
            .read_exact(&mut [0])
            .context("virtc printed nothing")?;
        let output = begin.elapsed();
        let status = child.0.wait()?;
        let exit = begin.elapsed();
        let mut text = String::new();
        if let Some(mut stderr) = child.0.stderr.take() {
            stderr.read_to_string(&mut text)?;
        }
        ensure!(status.success(), "virtc: {status}: {text}");
        Ok(Start {
            rows: timeline::parse(&text),
            output,
            exit,
        })
    }

    /// Calls `look` with the processes of a sandbox whose job waits for input.
    pub(super) fn waiting<T>(&self, look: impl FnOnce(&[Process]) -> Result<T>) -> Result<T> {
        let mut command = self.command(&["--quiet"], &[BUSYBOX, "cat"]);
        command.stdin(Stdio::piped());
        let mut child = Running::spawn(&mut command)?;
        let mut stdin = child.0.stdin.take().context("no stdin")?;
        let mut stdout = child.0.stdout.take().context("no stdout")?;
        stdin.write_all(b"\n")?;
        stdout
            .read_exact(&mut [0])
            .context("the job answered nothing")?;
        let seen = look(&Process::tree(child.0.id())?)?;
        drop(stdin);
        child.finish().context("virtc")?;
        Ok(seen)
    }

    /// How fast `bytes` go each way through the standard streams.
    pub(super) fn stream(&self, bytes: u64) -> Result<Rates> {
        // Not `cat`: busybox's moves 4 KiB at once, and would be measured in place of the stream.
        let script = format!(
            "exec 2>/dev/null; {BUSYBOX} dd if=/dev/zero bs=64k count={}; \
             {BUSYBOX} dd of=/dev/null bs=64k; echo",
            bytes >> 16,
        );
        let mut command = self.command(&["--quiet"], &[BUSYBOX, "sh", "-c", &script]);
        command.stdin(Stdio::piped());
        let mut child = Running::spawn(&mut command)?;
        let mut stdin = child.0.stdin.take().context("no stdin")?;
        let mut stdout = child.0.stdout.take().context("no stdout")?;
        let out = receive(&mut stdout, bytes).context("out of the sandbox")?;
        let begin = Instant::now();
        send(&mut stdin, bytes).context("into the sandbox")?;
        drop(stdin);
        stdout.read_exact(&mut [0])?;
        let rates = Rates::new(bytes, out, begin.elapsed());
        child.finish().context("virtc")?;
        Ok(rates)
    }

    /// It begins in `/`, which is not shared, so that the root is all that the guest gets.
    fn command(&self, flags: &[&str], program: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(Path::new("/"))
            // A cold start; `xtask speed` has the others.
            .env("VIRTC_FACTORY_AUTO", "false")
            .args(["run", "--timeout", "120"])
            .args(flags)
            .arg("--rootfs")
            .arg(&self.root)
            .arg("--")
            .args(program)
            .stdout(Stdio::piped());
        command
    }
}
