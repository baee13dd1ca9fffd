use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vc_types::Hint;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a process could not be started, watched or ended.
///
/// `name` is always [`LaunchSpec::name`](crate::LaunchSpec::name).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The launcher's thread, or what it needs, could not be made.
    #[error("cannot start the launcher")]
    Launcher {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The spec contradicts itself; nothing was started.
    #[error("cannot start {name}: {reason}")]
    Spec {
        /// The process.
        name: String,
        /// What is wrong with the spec.
        reason: String,
    },
    /// The program that is the launcher step could not be started.
    #[error("cannot start {name}: the launcher step {} does not run", program.display())]
    Spawn {
        /// The process.
        name: String,
        /// The launcher step's program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mount tree of a running process could not be changed.
    #[error("cannot change what {name} sees: {step}, {object}")]
    TreeChange {
        /// The process.
        name: String,
        /// Which step.
        step: Step,
        /// What it was working on.
        object: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// An archive could not be unpacked by a step of its own.
    #[error("cannot unpack at {destination}: {reason}")]
    Unpack {
        /// Where.
        destination: String,
        /// Why, with the file that it is about.
        reason: String,
    },
    /// Talking to the launcher step failed.
    #[error("cannot start {name}: the launcher step does not talk as expected")]
    Transfer {
        /// The process.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A step failed in the new process, before the program ran.
    #[error("cannot start {name}: {step}, {object}")]
    Step {
        /// The process.
        name: String,
        /// Which step.
        step: Step,
        /// What it was working on.
        object: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The launcher step ended without saying why.
    #[error("cannot start {name}: the launcher step ended early ({end})")]
    EndedEarly {
        /// The process.
        name: String,
        /// How it ended.
        end: String,
    },
    /// The launcher step did not answer in time, and was killed.
    #[error("cannot start {name}: the launcher step did not answer within {limit:?}")]
    TimedOut {
        /// The process.
        name: String,
        /// [`LAUNCH_LIMIT`](crate::LAUNCH_LIMIT).
        limit: Duration,
    },
    /// The launcher has ended, or more launches wait than it takes.
    #[error("cannot start {name}: the launcher takes no more work")]
    Refused {
        /// The process.
        name: String,
    },
    /// A started process could not be watched, waited for or signalled.
    #[error("cannot {attempt} {name} (process {pid})")]
    Process {
        /// The process.
        name: String,
        /// Its pid.
        pid: i32,
        /// What was tried: `wait for`, `signal`, …
        attempt: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Step { step, source, .. } => match (step, source.kind()) {
                (Step::Exec, io::ErrorKind::NotFound) => {
                    Some("install the program, or set its path in the configuration".into())
                }
                (
                    Step::Namespaces | Step::MountSources | Step::MountTree | Step::User,
                    io::ErrorKind::PermissionDenied,
                ) => Some("run as root: this needs CAP_SYS_ADMIN".into()),
                _ => None,
            },
            Self::Unpack { .. } => Some("what came before it is left there".into()),
            _ => None,
        }
    }
}

/// A step of the new process on its way to the program, in the order of their execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Step {
    /// The spec and the descriptors are received.
    Receive,
    /// A session and process group of its own.
    Session,
    /// Descriptors get their numbers; all others are closed at exec.
    Descriptors,
    /// The control groups are joined.
    Cgroup,
    /// The sources of the mount tree are taken from the caller's namespace.
    MountSources,
    /// New namespaces.
    Namespaces,
    /// The mount tree is built and becomes the root.
    MountTree,
    /// The mount namespace of a running process is entered.
    EnterNamespace,
    /// Something is taken out of a running process's mount tree.
    Unmount,
    /// Resource limits.
    Limits,
    /// Groups and user.
    User,
    /// Capability sets.
    Capabilities,
    /// `no_new_privs`.
    NoNewPrivileges,
    /// Signals are set to their defaults.
    Signals,
    /// The working directory.
    WorkingDirectory,
    /// The death signal.
    DeathSignal,
    /// The launching process and its thread still live.
    ParentCheck,
    /// The program is executed.
    Exec,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receive => "receiving the spec",
            Self::Session => "making a session",
            Self::Descriptors => "placing descriptors",
            Self::Cgroup => "joining the cgroup",
            Self::MountSources => "taking a mount's source",
            Self::Namespaces => "making namespaces",
            Self::MountTree => "building the mount tree",
            Self::EnterNamespace => "entering its mount namespace",
            Self::Unmount => "unmounting",
            Self::Limits => "setting resource limits",
            Self::User => "changing the user",
            Self::Capabilities => "setting capabilities",
            Self::NoNewPrivileges => "setting no_new_privs",
            Self::Signals => "resetting signals",
            Self::WorkingDirectory => "entering the working directory",
            Self::DeathSignal => "setting the death signal",
            Self::ParentCheck => "looking for the launching process",
            Self::Exec => "executing",
        })
    }
}
