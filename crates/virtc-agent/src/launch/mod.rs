//! Makes a container's processes in a fresh, single-threaded process: the agent is threaded and
//! never forks without an exec.
//!
//! The agent starts itself again ([`child`]) with the container's standard streams, a pipe for the
//! report, one for the start and one for the filter of system calls. The child builds the
//! container with `libcontainer`, which clones its first process as the agent's child (so the
//! agent waits for it), reports the pid and ends. The start pipe is held by the container's process alone then, and closes when its
//! `execve` succeeds, or carries why it did not.

mod child;
mod copy;
mod executor;
mod hooks;
mod lookup;
mod report;
mod request;

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use tokio::time::timeout;

use crate::error::{Attempt as _, Error, Result};
use crate::process::{Pipe, TerminalSocket, pipe_of, read_pipe};
use crate::reaper::{ExitReceiver, Reaper};
use crate::seccomp::{Filter, PendingFilter};

pub(crate) use child::run as run_child;
pub(crate) use copy::Copy;
pub(crate) use hooks::StartHooks;
pub(crate) use report::{FailedAt, StartFailure};
pub(crate) use request::{CONTAINERS_STATE_DIR, Request};

/// The first argument of a child.
pub(crate) const CHILD_ARGUMENT: &str = "launch";

/// How long a launch may take: it includes the specification's hooks and mounts over shares.
pub(crate) const LAUNCH_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of a child's report.
const REPORT_BYTES_MAX: usize = 64 << 10;

/// The container's ends of a process's standard streams. With a terminal there are none: the
/// container makes its terminal itself.
#[derive(Debug, Default)]
pub(crate) struct ChildStdio {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// The descriptors that a child gets, closed here once it has them.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(crate) stdio: ChildStdio,
    /// Further ones, under the numbers that they have here. They end with the child, and in the
    /// container's process with its `execve`.
    pub(crate) inherited: Vec<OwnedFd>,
}

/// A process that exists.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    pub(crate) exit: ExitReceiver,
    /// When the report was made. An exec's `execve` has returned then.
    pub(crate) reported_uptime_us: u64,
    /// Ends when `execve` succeeds.
    pub(crate) start: Pipe,
    /// The agent's end of the terminal, when there is one.
    pub(crate) terminal: Option<OwnedFd>,
    /// The filter that the process loads, when there is one.
    pub(crate) filter: Option<Arc<Filter>>,
}

/// Makes the process that `request` describes.
pub(crate) async fn launch(
    reaper: &Reaper,
    mut request: Request,
    passed: Passed,
    terminal: Option<TerminalSocket>,
    filter: Option<PendingFilter>,
) -> Result<Launched> {
    let name = request.process_name();
    let (report, report_writer) = pipe_from_child()?;
    let (start, start_writer) = pipe_from_child()?;
    let (filter_reader, filter) = match filter {
        None => (None, None),
        Some(filter) => {
            let (reader, writer) = pipe_to_child()?;
            (Some(reader), Some((filter, writer)))
        }
    };
    request.filter_fd = filter_reader.as_ref().map(OwnedFd::as_raw_fd);
    request.report_fd = report_writer.as_raw_fd();
    request.start_fd = start_writer.as_raw_fd();
    request.terminal_socket = terminal.as_ref().map(|socket| socket.path().to_owned());

    let expectation = reaper.expect();
    let helper = spawn(&request, passed)?;
    let helper_exit = expectation.claim(helper);
    drop((report_writer, start_writer, filter_reader));

    let report = pipe_of(report)?;
    let made = async { tokio::join!(read_report(&report), send_filter(filter)) };
    let (text, filter) = match timeout(LAUNCH_LIMIT, made).await {
        Ok((text, filter)) => (text?, filter),
        Err(_) => {
            if helper_exit.borrow().is_none() {
                // It ends by itself otherwise, so a failure says nothing.
                let _ = crate::sys::kill(helper, libc::SIGKILL);
            }
            let what = format!("making process {name}");
            return Err(Error::Timeout {
                what,
                limit: LAUNCH_LIMIT,
            });
        }
    };
    let made = report::parse(&text, request.cwd.as_deref());
    let filter = match (filter, &made) {
        (Ok(filter), _) => filter,
        (Err(error), made) => {
            // Without its filter it is never executed, and nobody would end it.
            if let Ok(made) = made {
                let _ = crate::sys::kill(made.pid, libc::SIGKILL);
            }
            return Err(error);
        }
    };
    let made = made.map_err(|cause| Error::Launch {
        process: name,
        cause,
    })?;
    Ok(Launched {
        pid: made.pid,
        exit: expectation.claim(made.pid),
        reported_uptime_us: made.uptime_us,
        start: pipe_of(start)?,
        terminal: terminal.map(TerminalSocket::receive).transpose()?,
        filter,
    })
}

/// Starts the child. Nothing else of the agent starts processes, so the descriptors that are
/// inheritable for this moment go to no other.
fn spawn(request: &Request, passed: Passed) -> Result<Pid> {
    let Passed { stdio, inherited } = passed;
    inherited.iter().try_for_each(pass_on)?;
    let attempt = || "start the process that makes containers".to_owned();
    let argument = request.to_argument()?;
    let stream = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::null, Stdio::from);
    let child = Command::new("/proc/self/exe")
        .arg0("virtc-agent")
        .args([CHILD_ARGUMENT, &argument])
        .env_clear()
        .current_dir("/")
        .stdin(stream(stdio.stdin))
        .stdout(stream(stdio.stdout))
        .stderr(stream(stdio.stderr))
        .spawn()
        .attempt(attempt)?;
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(rustix::io::Errno::RANGE)
        .attempt(attempt)
}

/// A pipe whose reader is ours and whose writer is the child's.
fn pipe_from_child() -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = new_pipe()?;
    pass_on(&writer)?;
    Ok((reader, writer))
}

/// A pipe whose reader is the child's and whose writer is ours.
fn pipe_to_child() -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = new_pipe()?;
    pass_on(&reader)?;
    Ok((reader, writer))
}

fn new_pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).attempt(|| "make a pipe".into())
}

fn pass_on(fd: &OwnedFd) -> Result<()> {
    rustix::io::fcntl_setfd(fd, FdFlags::empty()).attempt(|| "pass on a descriptor".into())
}

/// Gives the child its filter as soon as that is compiled.
async fn send_filter(filter: Option<(PendingFilter, OwnedFd)>) -> Result<Option<Arc<Filter>>> {
    let Some((pending, pipe)) = filter else {
        return Ok(None);
    };
    let filter = pending.compiled().await?;
    if let Err(error) = filter.send(pipe) {
        // A child that has failed reads no filter; its report says why.
        tracing::debug!(%error, "a child takes no filter");
    }
    Ok(Some(filter))
}

/// Reads until the report is complete. The pipe does not end then: the container's process holds
/// it until its `execve`.
async fn read_report(pipe: &Pipe) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let bytes = read_pipe(pipe, &mut buffer)
            .await
            .attempt(|| "read the report of a launch".into())?;
        text.extend_from_slice(&buffer[..bytes]);
        if bytes == 0 || report::is_complete(&text) || text.len() > REPORT_BYTES_MAX {
            return Ok(text);
        }
    }
}

/// Tells the waiting first process of a container to go on.
pub(crate) fn start_container(container_id: &str) -> Result<()> {
    use std::io::Write as _;
    let attempt = || format!("start container {container_id:?}");
    let directory = File::open(request::state_dir(container_id)).attempt(attempt)?;
    // The directory's own path may be too long for a socket's address.
    let path = format!("/proc/self/fd/{}/notify.sock", directory.as_raw_fd());
    let mut socket = std::os::unix::net::UnixStream::connect(path).attempt(attempt)?;
    socket.write_all(b"start container").attempt(attempt)
}
