use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::uri::LoggerProgram;
use crate::error::{Error, Result};

/// How long a logger may take until it says that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// The shell puts descriptors where a logger looks for them: 3 is stdout, 4 is stderr, 5 says that it
/// is ready by being closed. Between fork and exec, only unsafe code could.
const SHELL: &str = r#"exec "$0" "$@" 3<&0 4<&1 5<&2 0</dev/null 1>/dev/null 2>/dev/null"#;

/// A program that gets a process's output. It ends when both streams do.
#[derive(Debug)]
pub(crate) struct Logger {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Logger {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Stream`] when it cannot be started, or is not ready within the limit.
    pub(crate) fn start(program: &LoggerProgram, namespace: &str, id: &str) -> Result<Self> {
        started(program, namespace, id).map_err(|source| Error::Stream {
            uri: program.path.display().to_string(),
            source,
        })
    }
}

fn started(program: &LoggerProgram, namespace: &str, id: &str) -> io::Result<Logger> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let (stdout_end, stdout) = pipe()?;
    let (stderr_end, stderr) = pipe()?;
    let (ready, ready_end) = pipe()?;
    if !program.path.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    // A logger that does not read holds its process up, and nobody else.
    for end in [&stdout, &stderr] {
        rustix::fs::fcntl_setfl(end, OFlags::WRONLY | OFlags::NONBLOCK)?;
    }
    let mut child = Command::new("/bin/sh")
        .args(["-c", SHELL])
        .arg(&program.path)
        .args(&program.args)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name == "PATH"))
        .env("CONTAINER_ID", id)
        .env("CONTAINER_NAMESPACE", namespace)
        .stdin(Stdio::from(stdout_end))
        .stdout(Stdio::from(stderr_end))
        .stderr(Stdio::from(ready_end))
        .spawn()?;
    // A byte or the end: loggers do the one or the other.
    let limit = Timespec::try_from(READY_LIMIT).map_err(io::Error::other)?;
    let answered = loop {
        match poll(&mut [PollFd::new(&ready, PollFlags::IN)], Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            answered => break answered,
        }
    };
    if !matches!(answered, Ok(1..)) {
        child.kill()?;
        child.wait()?;
        return Err(io::ErrorKind::TimedOut.into());
    }
    std::thread::Builder::new()
        .name("logger".to_owned())
        .spawn(move || {
            if let Ok(status) = child.wait()
                && !status.success()
            {
                tracing::warn!(%status, "a logger failed");
            }
        })?;
    Ok(Logger { stdout, stderr })
}
