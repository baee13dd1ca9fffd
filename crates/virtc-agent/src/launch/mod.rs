//! Makes a container's processes in a fresh, single-threaded process: the agent is threaded and
//! never forks without an exec.
//!
//! The agent starts itself again (a [`maker`], whose own side is [`child`]), and gives it a task with
//! the container's standard streams, a pipe for the report, one for the start and one for the filter
//! of system calls. The maker builds the container with `libcontainer`, which clones its first
//! process as the agent's child (so the agent waits for it), reports the pid and ends. The start pipe
//! is held by the container's process alone then, and closes when its `execve` succeeds, or carries
//! why it did not. A container that waits ready-made is given the rest by a maker of its own
//! ([`ready`]).

mod bind;
mod child;
mod command;
mod copy;
mod executor;
mod hooks;
mod launcher;
mod lookup;
mod maker;
mod new_root;
mod ready;
mod report;
mod request;
mod task;

use std::fs::File;
use std::future::Future;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use tokio::time::timeout;

use crate::error::{Attempt as _, Error, Result};
use crate::process::{Pipe, TerminalSocket, pipe_of, read_pipe};
use crate::reaper::{ExitReceiver, Expectation};
use crate::seccomp::{Filter, PendingFilter};
use report::Made;
use task::{Role, Task};

pub(crate) use child::run as run_child;
pub(crate) use command::CommandMessage;
pub(crate) use copy::Copy;
pub(crate) use hooks::StartHooks;
pub(crate) use launcher::Launcher;
pub(crate) use maker::Working;
pub(crate) use new_root::{KEPT, NewRoot, PLACE};
pub(crate) use ready::{Waiting, complete_waiting, launch_waiting};
pub(crate) use report::{FailedAt, StartFailure};
pub(crate) use request::{CONTAINERS_STATE_DIR, Request};

/// The argument of a maker.
pub(crate) const CHILD_ARGUMENT: &str = "launch";

/// How long a launch may take: it includes the specification's hooks and mounts over shares.
pub(crate) const LAUNCH_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of a maker's report.
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
    /// Further ones, under the numbers that they have here. They end with the maker, and in the
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
    launcher: &Launcher,
    request: Request,
    passed: Passed,
    terminal: Option<TerminalSocket>,
    filter: Option<PendingFilter>,
) -> Result<Launched> {
    let (start, start_writer) = new_pipe()?;
    let (filter_reader, filter) = match filter {
        None => (None, None),
        Some(filter) => {
            let (reader, writer) = new_pipe()?;
            (Some(reader), Some((filter, writer)))
        }
    };
    let terminal_socket = terminal.as_ref().map(|socket| socket.path().to_owned());
    let request = Request {
        terminal_socket,
        ..request
    };

    let Passed { stdio, inherited } = passed;
    let gates = [
        (Role::Start, Some(start_writer)),
        (Role::Filter, filter_reader),
    ];
    let expectation = launcher.reaper.expect();
    let making = Making::begin(launcher, request, stdio, gates, inherited)?;
    let (made, filter, maker) = making.finish(send_filter(filter)).await?;
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
    let made = made.map_err(|error| with_killed(error, &expectation, &maker))?;
    Ok(Launched {
        pid: made.pid,
        exit: expectation.claim(made.pid),
        reported_uptime_us: made.uptime_us,
        start: pipe_of(start)?,
        terminal: terminal.map(TerminalSocket::receive).transpose()?,
        filter,
    })
}

/// A launch that failed, and the processes that were killed meanwhile. The library makes one through another, and
/// only says that it was not heard of again.
fn with_killed(error: Error, expectation: &Expectation, maker: &Working) -> Error {
    let Error::Launch { process, mut cause } = error else {
        return error;
    };
    for (pid, exit) in expectation.killed() {
        cause.push_str(&format!(
            "; process {pid} was killed by signal {}",
            exit.signal
        ));
    }
    if let Some(signal) = maker.killed_by() {
        cause.push_str(&format!("; its maker was killed by signal {signal}"));
    }
    Error::Launch { process, cause }
}

/// A task that a maker has taken.
struct Making {
    maker: Working,
    report: Pipe,
    process: String,
    cwd: Option<PathBuf>,
}

impl Making {
    fn begin(
        launcher: &Launcher,
        request: Request,
        stdio: ChildStdio,
        gates: impl IntoIterator<Item = (Role, Option<OwnedFd>)>,
        inherited: Vec<OwnedFd>,
    ) -> Result<Self> {
        let process = request.process_name();
        let cwd = request.cwd.clone();
        let (report, report_writer) = new_pipe()?;
        let fds = [
            (Role::Stdin, stdio.stdin),
            (Role::Stdout, stdio.stdout),
            (Role::Stderr, stdio.stderr),
            (Role::Report, Some(report_writer)),
        ];
        let fds = fds.into_iter().chain(gates);
        let (roles, fds): (Vec<_>, Vec<_>) = fds.filter_map(|(role, fd)| Some((role, fd?))).unzip();
        let given: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
        let maker = launcher.give(&Task { request, roles }, &given, inherited)?;
        Ok(Self {
            maker,
            report: pipe_of(report)?,
            process,
            cwd,
        })
    }

    /// What was made, what was done beside it, and the maker.
    async fn finish<T>(
        self,
        beside: impl Future<Output = T>,
    ) -> Result<(Result<Made>, T, Working)> {
        let made = async { tokio::join!(read_report(&self.report), beside) };
        let Ok((text, beside)) = timeout(LAUNCH_LIMIT, made).await else {
            self.maker.kill();
            return Err(Error::Timeout {
                what: format!("making process {}", self.process),
                limit: LAUNCH_LIMIT,
            });
        };
        let made = report::parse(&text?, self.cwd.as_deref()).map_err(|cause| Error::Launch {
            process: self.process,
            cause,
        });
        Ok((made, beside, self.maker))
    }
}

fn new_pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).attempt(|| "make a pipe".into())
}

/// Gives the maker its filter as soon as that is compiled.
async fn send_filter(filter: Option<(PendingFilter, OwnedFd)>) -> Result<Option<Arc<Filter>>> {
    let Some((pending, pipe)) = filter else {
        return Ok(None);
    };
    let filter = pending.compiled().await?;
    if let Err(error) = filter.send(pipe) {
        // A maker that has failed reads no filter; its report says why.
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
