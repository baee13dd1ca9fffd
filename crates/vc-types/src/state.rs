//! The states of sandboxes and containers, and the one table of their transitions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The state of a sandbox.
///
/// ```text
/// ready ──▶ running ◀──▶ paused
///   │          │            │
///   └──────────┴─▶ stopped ◀┘        stopped ──▶ running (a new VM is booted)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxState {
    /// Its VM runs and the agent answers; no container was started.
    Ready,
    /// Its containers were started.
    Running,
    /// Its VM's processors stand still.
    Paused,
    /// It has no VM.
    Stopped,
}

/// The state of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerState {
    /// It was made and waits for its start (OCI: created).
    Ready,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process ended.
    Stopped,
}

impl SandboxState {
    /// Goes to state `to`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidTransition`] when the table has no such way.
    pub fn transition(self, to: Self) -> Result<Self> {
        use SandboxState::{Paused, Ready, Running, Stopped};
        match (self, to) {
            (Ready, Running | Stopped)
            | (Running, Paused | Stopped)
            | (Paused, Running | Stopped)
            | (Stopped, Running) => Ok(to),
            (Ready, Ready | Paused)
            | (Running, Ready | Running)
            | (Paused, Ready | Paused)
            | (Stopped, Ready | Paused | Stopped) => Err(Error::InvalidTransition {
                kind: "sandbox",
                from: self.name(),
                to: to.name(),
            }),
        }
    }

    /// The state as users read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl ContainerState {
    /// Goes to state `to`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidTransition`] when the table has no such way.
    pub fn transition(self, to: Self) -> Result<Self> {
        use ContainerState::{Paused, Ready, Running, Stopped};
        match (self, to) {
            (Ready, Running | Stopped)
            | (Running, Paused | Stopped)
            | (Paused, Running | Stopped) => Ok(to),
            (Ready, Ready | Paused)
            | (Running, Ready | Running)
            | (Paused, Ready | Paused)
            | (Stopped, Ready | Running | Paused | Stopped) => Err(self.invalid(to)),
        }
    }

    /// Starts: only what was never started does. What is paused goes on by [`Self::resume`].
    ///
    /// # Errors
    ///
    /// [`Error::InvalidTransition`] from any other state than [`Self::Ready`].
    pub fn start(self) -> Result<Self> {
        match self {
            Self::Ready => self.transition(Self::Running),
            Self::Running | Self::Paused | Self::Stopped => Err(self.invalid(Self::Running)),
        }
    }

    /// Goes on after a pause.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidTransition`] from any other state than [`Self::Paused`].
    pub fn resume(self) -> Result<Self> {
        match self {
            Self::Paused => self.transition(Self::Running),
            Self::Ready | Self::Running | Self::Stopped => Err(self.invalid(Self::Running)),
        }
    }

    fn invalid(self, to: Self) -> Error {
        Error::InvalidTransition {
            kind: "container",
            from: self.name(),
            to: to.name(),
        }
    }

    /// The state as users read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for SandboxState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ContainerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_table_over_all_pairs() {
        use SandboxState::*;
        let allowed = [
            (Ready, Running),
            (Ready, Stopped),
            (Running, Paused),
            (Running, Stopped),
            (Paused, Running),
            (Paused, Stopped),
            (Stopped, Running),
        ];
        for from in [Ready, Running, Paused, Stopped] {
            for to in [Ready, Running, Paused, Stopped] {
                assert_eq!(
                    from.transition(to).is_ok(),
                    allowed.contains(&(from, to)),
                    "{from} {to}"
                );
            }
        }
    }

    #[test]
    fn the_container_table_over_all_pairs() {
        use ContainerState::*;
        let allowed = [
            (Ready, Running),
            (Ready, Stopped),
            (Running, Paused),
            (Running, Stopped),
            (Paused, Running),
            (Paused, Stopped),
        ];
        for from in [Ready, Running, Paused, Stopped] {
            for to in [Ready, Running, Paused, Stopped] {
                assert_eq!(
                    from.transition(to).is_ok(),
                    allowed.contains(&(from, to)),
                    "{from} {to}"
                );
            }
        }
    }

    #[test]
    fn start_and_resume_each_have_one_state_to_come_from() {
        use ContainerState::*;
        for from in [Ready, Running, Paused, Stopped] {
            assert_eq!(from.start().is_ok(), from == Ready, "{from}");
            assert_eq!(from.resume().is_ok(), from == Paused, "{from}");
        }
    }
}
