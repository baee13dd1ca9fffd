//! The processes of a sandbox's containers: their streams, signals, terminals and ends.

use std::sync::PoisonError;

use vc_types::{ClockPoint, ContainerId, ExecId, ExitStatus, Signal};

use super::Sandbox;
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

impl Sandbox {
    /// The standard streams of a container that was to be attached to; once.
    pub fn take_streams(&self, container: &ContainerId) -> Option<Streams> {
        self.streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(container)
    }

    /// Waits for the end of a process.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Ended`] when the machine ends first: the process is lost then, which is
    /// never a success. [`crate::Error::Agent`] when the agent does not know the process.
    pub async fn wait_process(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
    ) -> Result<ProcessExit> {
        let waited = self.agent.wait_process(container, exec);
        let answer = self.while_it_runs(async { Ok(waited.await?) }).await?;
        if exec.is_none() {
            if answer.started_uptime_us > 0 {
                let started = self.guest_epoch.saturating_add(answer.started_uptime_us);
                self.times().mark_at(ClockPoint::Started, started);
            }
            self.times().mark(ClockPoint::Ended);
        }
        Ok(ProcessExit {
            status: status(answer.code, answer.signal, answer.oom_killed),
            start_error: Some(answer.start_error).filter(|text| !text.is_empty()),
        })
    }

    /// Sends a signal to a process.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Agent`] when the process is not there.
    pub async fn signal_process(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
        signal: Signal,
    ) -> Result<()> {
        let sent = self.agent.signal_process(container, exec, signal);
        self.while_it_runs(async { Ok(sent.await?) }).await
    }

    /// Tells a process's terminal its size, in characters.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Agent`] when the process has no terminal.
    pub async fn winsize_process(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
        rows: u16,
        columns: u16,
    ) -> Result<()> {
        let told = self.agent.resize_terminal(container, exec, rows, columns);
        self.while_it_runs(async { Ok(told.await?) }).await
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
