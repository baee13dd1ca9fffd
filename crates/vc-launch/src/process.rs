use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use vc_types::{ProcessIdentity, Signal};

use crate::error::{Error, Result};

/// How long a dropped guard waits for its killed process. Longer takes only one that is stuck in
/// the kernel.
const DROP_LIMIT: Duration = Duration::from_secs(2);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal(Signal),
}

/// A process that the launcher started, and the duty to reap it.
///
/// Dropping it kills the process and reaps it, within two seconds; [`LaunchedProcess::detach`]
/// gives that up. It is a child of this process in any case: it ends when the
/// [`Launcher`](crate::Launcher) is dropped or this process ends, and nobody else may wait for it.
///
/// Its descriptor ([`AsFd`]) becomes readable when the process ends, for `poll` and the like.
#[derive(Debug)]
pub struct LaunchedProcess {
    name: String,
    pid: i32,
    pidfd: OwnedFd,
    identity: Option<ProcessIdentity>,
    end: Option<ProcessEnd>,
    detached: bool,
}

impl LaunchedProcess {
    /// Takes over a child that was not reaped yet, so that its pid is still its own.
    pub(crate) fn adopt(name: &str, pid: i32) -> Result<Self> {
        let opened = Pid::from_raw(pid)
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let pidfd = opened.map_err(|errno| Error::Process {
            name: name.into(),
            pid,
            attempt: "watch",
            source: errno.into(),
        })?;
        Ok(Self {
            name: name.into(),
            pid,
            pidfd,
            identity: ProcessIdentity::of(pid).ok(),
            end: None,
            detached: false,
        })
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its pid, for messages and files. It is its own until the process is reaped.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its identity, for the state.
    ///
    /// # Errors
    ///
    /// [`Error::Process`] when `/proc` could not be read.
    pub fn identity(&self) -> Result<ProcessIdentity> {
        match &self.identity {
            Some(identity) => Ok(identity.clone()),
            None => ProcessIdentity::of(self.pid)
                .map_err(|error| self.error("identify")(io::Error::other(error))),
        }
    }

    /// Another descriptor of the process, for a reactor that wants to own one.
    ///
    /// # Errors
    ///
    /// [`Error::Process`] when there are no more descriptors.
    pub fn pidfd(&self) -> Result<OwnedFd> {
        self.pidfd.try_clone().map_err(self.error("watch"))
    }

    /// Waits until it ends, and reaps it. Says the same again when it has ended before.
    ///
    /// # Errors
    ///
    /// [`Error::Process`] when somebody else reaped it.
    pub fn wait(&mut self) -> Result<ProcessEnd> {
        loop {
            if let Some(end) = self.reap(WaitIdOptions::EXITED)? {
                return Ok(end);
            }
        }
    }

    /// Reaps it if it has ended.
    ///
    /// # Errors
    ///
    /// As [`Self::wait`].
    pub fn try_wait(&mut self) -> Result<Option<ProcessEnd>> {
        self.reap(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits at most `limit` until it ends, and reaps it.
    ///
    /// # Errors
    ///
    /// As [`Self::wait`].
    pub fn wait_timeout(&mut self, limit: Duration) -> Result<Option<ProcessEnd>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.try_wait()? {
                return Ok(Some(end));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut watched = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut watched, Some(&crate::launcher::timespec(left))) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(self.error("wait for")(errno.into())),
            }
        }
    }

    /// Sends a signal. A process that has ended takes none, which is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Process`] when the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let Some(signal) = rustix::process::Signal::from_named_raw(i32::from(signal.number()))
        else {
            return Err(self.error("signal")(io::ErrorKind::InvalidInput.into()));
        };
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(self.error("signal")(errno.into())),
        }
    }

    /// Ends it with the signal that cannot be refused; [`Self::wait`] reaps it.
    ///
    /// # Errors
    ///
    /// As [`Self::signal`].
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Gives up the guard: the process goes on until it, the launcher or this process ends.
    /// Nobody reaps it then before this process ends.
    pub fn detach(mut self) {
        self.detached = true;
    }

    fn reap(&mut self, options: WaitIdOptions) -> Result<Option<ProcessEnd>> {
        if self.end.is_some() {
            return Ok(self.end);
        }
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(Some(status)) => {
                let killed = status.terminating_signal().map(u8::try_from);
                self.end = match killed.and_then(Result::ok).map(Signal::from_number) {
                    Some(Ok(signal)) => Some(ProcessEnd::Signal(signal)),
                    _ => Some(ProcessEnd::Code(status.exit_status().unwrap_or_default())),
                };
                Ok(self.end)
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => Ok(None),
            Err(errno) => Err(self.error("wait for")(errno.into())),
        }
    }

    fn error(&self, attempt: &'static str) -> impl FnOnce(io::Error) -> Error {
        let (name, pid) = (self.name.clone(), self.pid);
        move |source| Error::Process {
            name,
            pid,
            attempt,
            source,
        }
    }
}

impl Drop for LaunchedProcess {
    fn drop(&mut self) {
        if self.detached || self.end.is_some() {
            return;
        }
        let ended = self
            .kill()
            .and_then(|()| self.wait_timeout(DROP_LIMIT))
            .map(|end| end.is_some());
        match ended {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(name = self.name, pid = self.pid, "killed, but does not end");
            }
            Err(error) => {
                tracing::warn!(name = self.name, pid = self.pid, %error, "could not be ended");
            }
        }
    }
}

impl AsFd for LaunchedProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for LaunchedProcess {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

impl fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}
