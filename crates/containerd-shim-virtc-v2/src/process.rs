//! A process that containerd knows: a task's first one, or one that was added by exec.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::api::Status;
use tokio::sync::watch;
use tokio::time::timeout;
use vc_types::{ExitStatus, Signal};
use virtcontainers::{Process, ProcessExit};

use crate::error::{Error, Result};
use crate::io::{Carried, Opened, Stdio, Wake};

/// How long output may take to reach its reader after the process has ended.
/// containerd's own plug-in gives an end ten seconds for all that follows on it.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// What a process that was lost is said to have ended with: as if SIGKILL had ended it.
const LOST_CODE: u32 = 137;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: u32,
    pub(crate) at: SystemTime,
    /// Whether it was killed since its container had no more memory.
    pub(crate) out_of_memory: bool,
}

impl Exit {
    /// That of a process with which its machine ended, or which never ran.
    pub(crate) fn lost() -> Self {
        Self::now(LOST_CODE)
    }

    /// One of this moment.
    pub(crate) fn now(code: u32) -> Self {
        Self {
            code,
            at: SystemTime::now(),
            out_of_memory: false,
        }
    }

    /// What the guest says; one that cannot be known is no success.
    pub(crate) fn of(told: Result<ProcessExit, virtcontainers::Error>) -> Self {
        match told {
            Ok(exit) => {
                if let Some(error) = &exit.start_error {
                    tracing::warn!(error, "a process was not started");
                }
                Self {
                    code: u32::from(exit.status.shell_code()),
                    at: SystemTime::now(),
                    out_of_memory: matches!(exit.status, ExitStatus::Signal { oom: true, .. }),
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a process is lost");
                Self::lost()
            }
        }
    }
}

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is being made.
    Creating,
    /// It waits for its start.
    Created,
    Running,
    Paused,
    Stopped(Exit),
}

impl Phase {
    /// Whether it may become `to`: the only table of it.
    fn leads_to(self, to: Self) -> bool {
        use Phase::{Created, Creating, Paused, Running, Stopped};
        match (self, to) {
            (Creating, Created | Stopped(_))
            | (Created, Running | Stopped(_))
            | (Running, Paused | Stopped(_))
            | (Paused, Running | Stopped(_)) => true,
            (Creating, Creating | Running | Paused)
            | (Created, Creating | Created | Paused)
            | (Running, Creating | Created | Running)
            | (Paused, Creating | Created | Paused)
            | (Stopped(_), _) => false,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Creating => "being created",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped(_) => "stopped",
        }
    }

    /// containerd's word.
    pub(crate) const fn status(self) -> Status {
        match self {
            Self::Creating | Self::Created => Status::CREATED,
            Self::Running => Status::RUNNING,
            Self::Paused => Status::PAUSED,
            Self::Stopped(_) => Status::STOPPED,
        }
    }

    pub(crate) const fn exit(self) -> Option<Exit> {
        match self {
            Self::Stopped(exit) => Some(exit),
            _ => None,
        }
    }
}

/// The input of a process.
#[derive(Debug)]
enum Stdin {
    /// It is not carried yet.
    Open,
    /// Its end was asked for before it is carried.
    Closed,
    /// It ends when this happens.
    Carried(Wake),
}

/// A process and what belongs to it.
#[derive(Debug)]
pub(crate) struct TaskProcess {
    /// For messages.
    name: String,
    pub(crate) stdio: Stdio,
    phase: watch::Sender<Phase>,
    guest: OnceLock<Arc<Process>>,
    /// Held while output is on its last way: who comes second waits too.
    carried: tokio::sync::Mutex<Option<Carried>>,
    stdin: Mutex<Stdin>,
    /// The size of its terminal, where that came before the process.
    size: Mutex<Option<(u16, u16)>>,
    /// Held by whoever starts, pauses or deletes it, and who tells its end: what is told is in order.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

impl TaskProcess {
    pub(crate) fn new(name: String, stdio: Stdio, phase: Phase) -> Self {
        Self {
            name,
            stdio,
            phase: watch::Sender::new(phase),
            guest: OnceLock::new(),
            carried: tokio::sync::Mutex::new(None),
            stdin: Mutex::new(Stdin::Open),
            size: Mutex::new(None),
            changing: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes to a phase, if there is a way: what has ended stays so. Says whether there was.
    pub(crate) fn enter(&self, to: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let leads = phase.leads_to(to);
            if leads {
                *phase = to;
            }
            leads
        })
    }

    /// Refuses what can only be done in a phase.
    ///
    /// # Errors
    ///
    /// [`Error::Finished`], [`Error::Precondition`].
    pub(crate) fn expect(&self, expected: Phase, wanted: &'static str) -> Result<()> {
        match self.phase() {
            phase if phase == expected => Ok(()),
            Phase::Stopped(_) => Err(Error::Finished {
                what: self.name.clone(),
            }),
            phase => Err(Error::Precondition {
                what: self.name.clone(),
                state: phase.name(),
                wanted,
            }),
        }
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> Exit {
        let mut phase = self.phase.subscribe();
        let ended = phase.wait_for(|phase| phase.exit().is_some()).await;
        // The sender is this value's own.
        ended
            .ok()
            .and_then(|phase| phase.exit())
            .unwrap_or_else(Exit::lost)
    }

    /// The guest's process.
    ///
    /// # Errors
    ///
    /// [`Error::Precondition`] while there is none.
    pub(crate) fn guest(&self, wanted: &'static str) -> Result<Arc<Process>> {
        let guest = self.guest.get().cloned();
        guest.ok_or_else(|| Error::Precondition {
            what: self.name.clone(),
            state: self.phase().name(),
            wanted,
        })
    }

    /// Takes the guest's process, and lets its streams flow. One whose streams do not is this value's
    /// all the same, to be killed.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when there can be no more threads.
    pub(crate) async fn attach(&self, mut guest: Process, opened: Opened) -> Result<()> {
        let streams = guest.take_streams();
        // There is one attempt: whoever starts it holds `changing`.
        let _ = self.guest.set(Arc::new(guest));
        if let Some(streams) = streams {
            let carried = Carried::begin(streams, opened).map_err(|source| Error::System {
                attempt: format!("carry the streams of {}", self.name),
                source,
            })?;
            let before = std::mem::replace(&mut *self.stdin(), Stdin::Carried(carried.stdin_end()));
            if matches!(before, Stdin::Closed) {
                self.close_stdin();
            }
            *self.carried.lock().await = Some(carried);
        }
        Ok(())
    }

    /// Waits until its program is executed.
    ///
    /// # Errors
    ///
    /// [`Error::NotExecuted`] where it cannot be, and what the guest says.
    pub(crate) async fn executed(&self) -> Result<()> {
        match self.guest("started")?.started().await? {
            None => Ok(()),
            Some(reason) => Err(self.not_executed(reason)),
        }
    }

    /// The error where its program cannot be executed.
    pub(crate) fn not_executed(&self, reason: String) -> Error {
        Error::NotExecuted {
            what: self.name.clone(),
            reason,
        }
    }

    /// Waits for its end in the guest, for as long as it takes.
    pub(crate) async fn guest_exit(&self) -> Exit {
        match self.guest("waited for") {
            Ok(guest) => Exit::of(guest.wait().await),
            Err(error) => {
                tracing::error!(%error, "a process is not watched");
                Exit::lost()
            }
        }
    }

    /// Takes the end of a process that nobody watches, since its program could not be executed.
    pub(crate) async fn collect(&self, limit: Duration) {
        let exit = timeout(limit, self.guest_exit()).await;
        self.enter(Phase::Stopped(exit.unwrap_or_else(|_| Exit::lost())));
    }

    /// Ends what the guest may have of a process whose start has failed.
    pub(crate) async fn abandon(&self) {
        if let Some(guest) = self.guest.get().cloned()
            && let Err(error) = guest.signal(Signal::KILL).await
        {
            tracing::warn!(%error, "{} may go on in the guest", self.name);
        }
        self.enter(Phase::Stopped(Exit::lost()));
    }

    /// Ends its stdin, now or when it begins.
    pub(crate) fn close_stdin(&self) {
        let mut stdin = self.stdin();
        match &*stdin {
            Stdin::Carried(end) => end.wake(),
            Stdin::Open | Stdin::Closed => *stdin = Stdin::Closed,
        }
    }

    /// Sets the size of its terminal, now or when it begins.
    ///
    /// # Errors
    ///
    /// What the guest says.
    pub(crate) async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        *self.size() = Some((rows, columns));
        match self.guest.get().cloned() {
            Some(guest) if self.phase().exit().is_none() => {
                Ok(guest.winsize(rows, columns).await?)
            }
            _ => Ok(()),
        }
    }

    /// The size that its terminal is to have.
    pub(crate) fn wanted_size(&self) -> Option<(u16, u16)> {
        *self.size()
    }

    /// Waits until its output is where it belongs, within a limit.
    pub(crate) async fn drained(&self) {
        let mut carried = self.carried.lock().await;
        if let Some(carried) = &mut *carried {
            carried.drained(DRAIN_LIMIT).await;
        }
        *carried = None;
    }

    fn stdin(&self) -> MutexGuard<'_, Stdin> {
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn size(&self) -> MutexGuard<'_, Option<(u16, u16)>> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_stays_so() {
        let process = TaskProcess::new("task c1".into(), Stdio::default(), Phase::Creating);
        assert!(!process.enter(Phase::Running));
        assert!(process.enter(Phase::Created));
        assert!(process.enter(Phase::Running));
        assert!(process.enter(Phase::Paused));
        let exit = Exit::lost();
        assert!(process.enter(Phase::Stopped(exit)));
        assert!(!process.enter(Phase::Running));
        assert!(!process.enter(Phase::Stopped(Exit { code: 0, ..exit })));
        assert_eq!(process.phase().exit().unwrap().code, 137);
        assert!(matches!(
            process.expect(Phase::Running, "killed"),
            Err(Error::Finished { .. })
        ));
    }
}
