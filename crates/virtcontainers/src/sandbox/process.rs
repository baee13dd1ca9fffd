//! The processes of a sandbox's containers: their streams, signals, terminals and ends.

use agent_protocol::virtc::WaitResponse;
use vc_types::{ContainerId, ExecId, ExitStatus, Signal};

use super::handle::SandboxHandle;
use super::lease::Lease;
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
    /// Whether a hook of its start failed, so that the program was never executed;
    /// `start_error` says why.
    pub start_refused: bool,
}

/// A process of a container: its first one, or one that was added.
#[derive(Debug)]
pub struct Process {
    pub(super) sandbox: SandboxHandle,
    pub(super) container: ContainerId,
    /// None for the first one.
    pub(super) exec: Option<ExecId>,
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

    /// Binds its life to the lease: when that is dropped, or this process ends, it is killed.
    ///
    /// # Errors
    ///
    /// [`crate::Error::System`] when the sandbox's keeper does not listen any more.
    pub fn lease(&self) -> Result<Lease> {
        let directory = self.sandbox.0.directory.path();
        let mut lease = Lease::take(directory, &self.container, self.exec.as_ref())?;
        lease.made()?;
        Ok(lease)
    }

    /// Removes the container that it is of, whether it runs or not.
    ///
    /// # Errors
    ///
    /// Those of [`SandboxHandle::delete_container`].
    pub async fn remove_container(&self) -> Result<()> {
        self.sandbox.delete_container(&self.container, true).await
    }

    /// Waits for its end. That of a first process is written down.
    ///
    /// # Errors
    ///
    /// As [`SandboxHandle::wait_process`].
    pub async fn wait(&self) -> Result<ProcessExit> {
        match &self.exec {
            None => self.sandbox.wait_process(&self.container).await,
            exec => {
                let guest = &self.sandbox.0.guest;
                let answer = guest.wait(&self.container, exec.as_ref()).await?;
                Ok(ProcessExit::of(answer))
            }
        }
    }

    /// Waits until its program is executed, once it was started. Why it cannot be, where it cannot;
    /// that is its end, too.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Agent`], and [`crate::Error::Ended`] when the machine ends meanwhile.
    pub async fn started(&self) -> Result<Option<String>> {
        let guest = &self.sandbox.0.guest;
        guest.started(&self.container, self.exec.as_ref()).await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Agent`] when it has ended.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let guest = &self.sandbox.0.guest;
        guest
            .signal(&self.container, self.exec.as_ref(), signal)
            .await
    }

    /// Tells its terminal its size, in characters.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Agent`] when it has no terminal.
    pub async fn winsize(&self, rows: u16, columns: u16) -> Result<()> {
        let guest = &self.sandbox.0.guest;
        guest
            .winsize(&self.container, self.exec.as_ref(), rows, columns)
            .await
    }
}

impl ProcessExit {
    /// Why its start was refused, where it was.
    pub(super) fn refused(&self) -> Option<String> {
        self.start_refused
            .then(|| self.start_error.clone().unwrap_or_default())
    }

    pub(super) fn of(answer: WaitResponse) -> Self {
        Self {
            status: status(answer.code, answer.signal, answer.oom_killed),
            start_refused: answer.start_refused,
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
