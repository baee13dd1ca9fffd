//! A process of a container: its streams, its start and its end.

mod follow;
mod io;
mod list;
mod pipe;
mod terminal;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Pid;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::{Attempt as _, Error, Result};
use crate::reaper::ExitReceiver;

pub(crate) use follow::{Role, follow};
pub(crate) use io::{ProcessIo, StdioPipes, end_input};
pub(crate) use list::list_processes;
pub(crate) use pipe::{Pipe, pipe_of, read_pipe, write_pipe};
pub(crate) use terminal::{TerminalSocket, resize, set_owner};

/// How long a container's first process may take from the start to its `execve`, without its hooks:
/// reading the program from a share.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How far a process has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// It waits for the start, or is on the way to its `execve`.
    Pending,
    /// `execve` returned at this time.
    Running { uptime_us: u64 },
    /// The program could not be executed.
    Failed { text: String },
    /// A hook failed before its program.
    Refused { text: String },
    /// It ended before anybody started it.
    Never,
}

impl Start {
    /// When `execve` returned, in microseconds, or 0; and why it was not, or nothing.
    pub(crate) fn told(self) -> (u64, String) {
        match self {
            Self::Running { uptime_us } => (uptime_us, String::new()),
            Self::Failed { text } | Self::Refused { text } => (0, text),
            Self::Pending | Self::Never => (0, String::new()),
        }
    }
}

/// How a process ended, with all that the host may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: u32,
    pub(crate) signal: u32,
    pub(crate) oom_killed: bool,
    pub(crate) started_uptime_us: u64,
    pub(crate) ended_uptime_us: u64,
    pub(crate) start_error: String,
    pub(crate) start_refused: bool,
}

/// One process, from its creation until its container is removed.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) container_id: String,
    pub(crate) exec_id: String,
    pub(crate) pid: Pid,
    pub(crate) io: ProcessIo,
    exit: ExitReceiver,
    start_requested: AtomicBool,
    start: watch::Sender<Start>,
    ended: watch::Sender<Option<Ended>>,
}

impl Process {
    /// A process that was just made. [`follow()`] has to be spawned for it.
    pub(crate) fn new(
        container_id: &str,
        exec_id: &str,
        pid: Pid,
        io: ProcessIo,
        exit: ExitReceiver,
    ) -> Arc<Self> {
        Arc::new(Self {
            container_id: container_id.to_owned(),
            exec_id: exec_id.to_owned(),
            pid,
            io,
            exit,
            start_requested: AtomicBool::new(false),
            start: watch::channel(Start::Pending).0,
            ended: watch::channel(None).0,
        })
    }

    /// What an error calls it.
    pub(crate) fn name(&self) -> String {
        format!(
            "process {:?} of container {:?}",
            self.exec_id, self.container_id
        )
    }

    /// Whether it was collected. Its pid may belong to another process then.
    pub(crate) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Notes that it is being started; false when it was before.
    pub(crate) fn request_start(&self) -> bool {
        !self.start_requested.swap(true, Ordering::Relaxed)
    }

    /// Whether somebody started it.
    pub(crate) fn start_requested(&self) -> bool {
        self.start_requested.load(Ordering::Relaxed)
    }

    /// Waits until `execve` returned or failed; its hooks may take `hooks` before.
    ///
    /// # Errors
    ///
    /// [`Error::Hook`] when one of them failed, [`Error::Timeout`].
    pub(crate) async fn started(&self, hooks: Duration) -> Result<Start> {
        let limit = START_LIMIT.saturating_add(hooks);
        match timeout(limit, self.start_outcome()).await {
            Ok(Start::Refused { text }) => Err(Error::Hook {
                container: self.container_id.clone(),
                text,
            }),
            Ok(start) => Ok(start),
            Err(_) => Err(Error::Timeout {
                what: format!("starting {}", self.name()),
                limit,
            }),
        }
    }

    /// Waits until it is known what became of the start, for as long as that takes.
    pub(crate) async fn start_outcome(&self) -> Start {
        let mut start = self.start.subscribe();
        let known = start.wait_for(|start| *start != Start::Pending).await;
        // The sender lives as long as we do.
        known.map_or(Start::Pending, |start| start.clone())
    }

    /// Waits for the end, for as long as it takes.
    pub(crate) async fn wait(&self) -> Result<Ended> {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await;
        ended
            .ok()
            .and_then(|ended| ended.clone())
            .ok_or_else(|| Error::State {
                object: self.name(),
                state: "no longer followed",
            })
    }

    /// Sends a signal, real-time ones included.
    ///
    /// As with a zombie, one to what has ended is nobody's, and an error once the end can be waited
    /// for: who is told of it learns at once how it was.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        if self.ended.borrow().is_some() {
            return Err(Error::Finished(self.name()));
        }
        if self.has_ended() {
            return Ok(());
        }
        crate::sys::kill(self.pid, signal)
            .attempt(|| format!("send signal {signal} to {}", self.name()))
    }
}
