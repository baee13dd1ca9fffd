use std::process::ExitCode;

use rustix::process::Signal;
use vc_types::{EndReason, ExitStatus};
use virtcontainers::keeper::{self, Waiting};
use virtcontainers::{Error, ProcessExit};

use crate::error::{FAILED, Failure};
use crate::join::{End, exit_code, signal_code};
use crate::output;

/// Signals that end nobody: only a guest that lies says that one of them ended a process.
const HARMLESS: [Signal; 8] = [
    Signal::STOP,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::CONT,
    Signal::CHILD,
    Signal::URG,
    Signal::WINCH,
];

/// How the process ended that was stood for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// Nobody knows: its machine ended first.
    Lost(EndReason),
}

impl Outcome {
    /// It never was.
    pub(super) const FAILED: Self = Self::Code(FAILED);

    /// That of a stand-in's work, which is done on this thread.
    pub(super) fn of_work(work: impl AsyncFnOnce(&Waiting) -> Self) -> Self {
        keeper::block_on(work).unwrap_or_else(|error| {
            tracing::error!(%error, "the system gives no event queue");
            Self::FAILED
        })
    }

    /// What the joined process's end means; an error is said.
    pub(super) fn of(ended: Result<End, Error>) -> Self {
        match ended {
            Ok(End::Exited(exit)) => Self::of_exit(&exit),
            Ok(End::TimedOut) => Self::Lost(EndReason::TimedOut),
            Ok(End::Ended(signal)) => Self::Signal(signal_code(signal) & 0x7f),
            Err(error) => {
                Failure::from_error(FAILED, &error).report();
                Self::Lost(match error {
                    Error::Ended { reason, .. } => reason,
                    error => EndReason::VmCrashed {
                        detail: error.to_string(),
                    },
                })
            }
        }
    }

    fn of_exit(exit: &ProcessExit) -> Self {
        if let Some(text) = &exit.start_error {
            output::error(text);
        }
        match &exit.status {
            ExitStatus::Signal { signal, .. } => Self::Signal(*signal),
            _ => Self::Code(exit_code(exit)),
        }
    }

    /// How the state has it.
    pub(super) fn status(&self) -> ExitStatus {
        match self {
            Self::Code(code) => ExitStatus::Code(*code),
            Self::Signal(signal) => ExitStatus::Signal {
                signal: *signal,
                oom: false,
            },
            Self::Lost(reason) => ExitStatus::Lost {
                reason: reason.clone(),
            },
        }
    }

    /// Ends this process in the same way.
    pub(super) fn end(self) -> ExitCode {
        if let Self::Signal(number) = self
            && let Some(signal) = Signal::from_named_raw(number.into())
            && !HARMLESS.contains(&signal)
        {
            vc_launch::end_by_signal(signal);
        }
        ExitCode::from(self.status().shell_code())
    }
}
