//! The process that makes a container process, seen by the agent: it is started first, and told
//! its task by a socket.
//!
//! One that is started ahead (a standby) has the start of its program behind it when a task comes,
//! which is a large part of an exec's time where the guest is emulated. Until then it runs only
//! when nothing else in the guest wants to.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::time::timeout;

use super::task::Task;
use super::{CHILD_ARGUMENT, LAUNCH_LIMIT};
use crate::error::{Attempt as _, Error, Result};
use crate::reaper::{ExitReceiver, Reaper};

/// A maker that waits for its task. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Maker {
    pid: Pid,
    exit: ExitReceiver,
    socket: OwnedFd,
}

/// A maker at its task. One that completes a container ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Working {
    pid: Pid,
    exit: ExitReceiver,
    _socket: OwnedFd,
}

impl Maker {
    /// Starts one, which has `inherited` under the numbers that they have here. Nothing else of the
    /// agent starts processes, so the descriptors that are inheritable for this moment go to no
    /// other.
    pub(super) fn start(reaper: &Reaper, inherited: Vec<OwnedFd>) -> Result<Self> {
        let attempt = || "start the process that makes containers".to_owned();
        for fd in &inherited {
            rustix::io::fcntl_setfd(fd, FdFlags::empty()).attempt(attempt)?;
        }
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .attempt(attempt)?;
        let expectation = reaper.expect();
        let child = Command::new("/proc/self/exe")
            .arg0("virtc-agent")
            .arg(CHILD_ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .attempt(attempt)?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(Errno::RANGE)
            .attempt(attempt)?;
        Ok(Self {
            pid,
            exit: expectation.claim(pid),
            socket,
        })
    }

    /// Starts one for a task that may come.
    pub(super) fn stand_by(reaper: &Reaper) -> Result<Self> {
        let maker = Self::start(reaper, Vec::new())?;
        let attempt = || "let a process wait in the background".to_owned();
        crate::sys::run_when_idle(maker.pid).attempt(attempt)?;
        Ok(maker)
    }

    /// Returns when it is about to wait for its task, or has ended.
    pub(super) async fn ready(&self) -> Result<()> {
        let attempt = || "wait for the process that makes containers".to_owned();
        let socket = self.socket.try_clone().attempt(attempt)?;
        let socket = crate::sys::watch(socket, Interest::READABLE).attempt(attempt)?;
        match timeout(LAUNCH_LIMIT, socket.readable()).await {
            Ok(said) => said.map(drop).attempt(attempt),
            Err(_) => Err(Error::Timeout {
                what: attempt(),
                limit: LAUNCH_LIMIT,
            }),
        }
    }

    /// Makes one that stood by as urgent as every other process.
    pub(super) fn wake(self) -> Result<Self> {
        let attempt = || "bring a process to the foreground".to_owned();
        crate::sys::run_normally(self.pid).attempt(attempt)?;
        Ok(self)
    }

    /// Tells it what to make. It cannot be told when it has ended.
    pub(super) fn give(self, task: &Task, fds: &[BorrowedFd<'_>]) -> Result<Working> {
        task.send(self.socket.as_fd(), fds)?;
        Ok(Working {
            pid: self.pid,
            exit: self.exit,
            _socket: self.socket,
        })
    }

    /// Whether it was not seen to end.
    pub(super) fn waits(&self) -> bool {
        self.exit.borrow().is_none()
    }
}

impl Working {
    /// The signal that has ended it, as far as was seen.
    pub(super) fn killed_by(&self) -> Option<u32> {
        let exit = *self.exit.borrow();
        exit.map(|exit| exit.signal).filter(|&signal| signal != 0)
    }

    /// Ends it, unless it has ended.
    pub(super) fn kill(&self) {
        if self.exit.borrow().is_none() {
            // It ends by itself otherwise, so a failure says nothing.
            let _ = crate::sys::kill(self.pid, libc::SIGKILL);
        }
    }
}

/// Whether nobody took the task because the maker had ended.
pub(super) fn has_ended(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. }
        if matches!(Errno::from_io_error(source), Some(Errno::PIPE | Errno::CONNRESET)))
}
