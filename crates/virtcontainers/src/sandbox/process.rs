//! The processes of a sandbox's containers: their streams, signals, terminals and ends.

use std::sync::{Arc, PoisonError};

use agent_protocol::virtc::WaitResponse;
use vc_types::{ClockPoint, ContainerId, ExecId, ExitStatus, Signal};

use super::Sandbox;
use super::guest::Guest;
use crate::error::Result;
use crate::stream::Streams;

/// How a process ended, as the agent tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessExit {
    /// Its code or signal.
    pub status: ExitStatus,
    /// Why the program could not be executed, where that is what happened; the code is 127 or
    /// 126 then.
    pub start_error: Option<String>,
}

/// A process that was added to a container.
#[derive(Debug)]
pub struct Process {
    pub(super) guest: Arc<Guest>,
    pub(super) container: ContainerId,
    pub(super) exec: ExecId,
    pub(super) streams: Option<Streams>,
}

/// A process as the guest knows it. Its numbers mean nothing on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestProcess {
    /// The guest's pid.
    pub pid: u32,
    /// The guest's pid of its parent.
    pub parent: u32,
    /// The user that it runs as, in the guest.
    pub uid: u32,
    /// One letter, see proc(5).
    pub state: String,
    /// The name of its program.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
}

impl Process {
    /// Its standard streams; once.
    pub fn take_streams(&mut self) -> Option<Streams> {
        self.streams.take()
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::wait_process`].
    pub async fn wait(&self) -> Result<ProcessExit> {
        let answer = self.guest.wait(&self.container, Some(&self.exec)).await?;
        Ok(ProcessExit::of(answer))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Agent`] when it has ended.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let exec = Some(&self.exec);
        self.guest.signal(&self.container, exec, signal).await
    }

    /// Tells its terminal its size, in characters.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Agent`] when it has no terminal.
    pub async fn winsize(&self, rows: u16, columns: u16) -> Result<()> {
        let exec = Some(&self.exec);
        self.guest
            .winsize(&self.container, exec, rows, columns)
            .await
    }
}

impl Sandbox {
    /// The standard streams of a container that was to be attached to; once.
    pub fn take_streams(&self, container: &ContainerId) -> Option<Streams> {
        self.streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(container)
    }

    /// Waits for the end of a container's first process.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Ended`] when the machine ends first: the process is lost then, which is
    /// never a success. [`crate::Error::Agent`] when the agent does not know the container.
    pub async fn wait_process(&self, container: &ContainerId) -> Result<ProcessExit> {
        let answer = self.guest.wait(container, None).await?;
        if answer.started_uptime_us > 0 {
            let started = self.guest_epoch.saturating_add(answer.started_uptime_us);
            self.times().mark_at(ClockPoint::Started, started);
        }
        self.times().mark(ClockPoint::Ended);
        Ok(ProcessExit::of(answer))
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Agent`] when the process is not there.
    pub async fn signal_process(&self, container: &ContainerId, signal: Signal) -> Result<()> {
        self.guest.signal(container, None, signal).await
    }

    /// Tells the terminal of a container's first process its size, in characters.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Agent`] when the process has no terminal.
    pub async fn winsize_process(
        &self,
        container: &ContainerId,
        rows: u16,
        columns: u16,
    ) -> Result<()> {
        self.guest.winsize(container, None, rows, columns).await
    }
}

impl ProcessExit {
    fn of(answer: WaitResponse) -> Self {
        Self {
            status: status(answer.code, answer.signal, answer.oom_killed),
            start_error: Some(answer.start_error).filter(|text| !text.is_empty()),
        }
    }
}

/// What the guest says, bounded: a code that is none is an error's, never 0.
fn status(code: u32, signal: u32, oom: bool) -> ExitStatus {
    match (u8::try_from(signal), u8::try_from(code)) {
        (Ok(0), Ok(code)) => ExitStatus::Code(code),
        (Ok(signal @ 1..=64), _) => ExitStatus::Signal { signal, oom },
        _ => ExitStatus::Code(u8::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_lies_about_codes_is_never_a_success() {
        assert_eq!(status(0, 0, false), ExitStatus::Code(0));
        assert_eq!(status(7, 0, false), ExitStatus::Code(7));
        assert_eq!(
            status(0, 9, true),
            ExitStatus::Signal {
                signal: 9,
                oom: true
            }
        );
        for (code, signal) in [(256, 0), (0, 65), (0, 256), (u32::MAX, 0), (0, u32::MAX)] {
            assert!(!status(code, signal, false).is_success(), "{code} {signal}");
        }
    }
}
