use std::fmt;

use serde::{Deserialize, Serialize};
use vc_types::{EndReason, Signal};

/// Why a VM ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum VmEnd {
    /// The host asked the VMM to end, by [`Vm::stop`](crate::Vm::stop) or its command socket.
    Stopped {
        /// It did not end in time, or no time was given to it, and was killed.
        killed: bool,
    },
    /// The guest switched itself off.
    GuestShutdown,
    /// The guest reset itself, which a guest kernel does at a panic too.
    GuestReset,
    /// The guest's kernel said that it panicked.
    GuestPanicked,
    /// A signal of somebody else ended the VMM.
    Killed {
        /// The signal. A VMM that obeys a signal does not say which: then it is SIGTERM.
        signal: Signal,
    },
    /// The VMM gave up.
    Failed {
        /// Its exit code.
        code: i32,
        /// The last lines that it printed.
        messages: Vec<String>,
    },
    /// It is gone, and this process was not the one that could have seen why.
    Unseen,
}

impl VmEnd {
    /// What this end means for what ran in the VM.
    pub fn reason(&self) -> EndReason {
        match self {
            Self::Stopped { .. } => EndReason::Requested,
            Self::GuestShutdown
            | Self::GuestReset
            | Self::GuestPanicked
            | Self::Killed { .. }
            | Self::Failed { .. }
            | Self::Unseen => EndReason::VmCrashed {
                detail: self.to_string(),
            },
        }
    }
}

impl fmt::Display for VmEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped { killed: false } => f.write_str("the VMM was asked to end"),
            Self::Stopped { killed: true } => f.write_str("the VMM was killed to stop the VM"),
            Self::GuestShutdown => f.write_str("the guest switched itself off"),
            Self::GuestReset => {
                f.write_str("the guest reset itself (its kernel may have panicked)")
            }
            Self::GuestPanicked => f.write_str("the guest's kernel panicked"),
            Self::Killed { signal } => write!(f, "the VMM was ended by {signal}"),
            Self::Failed { code, messages } => {
                write!(f, "the VMM ended with code {code}")?;
                match messages.as_slice() {
                    [] => Ok(()),
                    lines => write!(f, ": {}", lines.join("; ")),
                }
            }
            Self::Unseen => f.write_str("the VMM is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stop_that_was_asked_for_is_no_crash() {
        assert_eq!(
            VmEnd::Stopped { killed: true }.reason(),
            EndReason::Requested
        );
        for end in [
            VmEnd::GuestShutdown,
            VmEnd::GuestReset,
            VmEnd::GuestPanicked,
            VmEnd::Killed {
                signal: Signal::KILL,
            },
            VmEnd::Failed {
                code: 1,
                messages: vec!["no memory".into()],
            },
            VmEnd::Unseen,
        ] {
            assert!(matches!(end.reason(), EndReason::VmCrashed { .. }), "{end}");
            let text = serde_json::to_string(&end).unwrap();
            assert_eq!(serde_json::from_str::<VmEnd>(&text).unwrap(), end, "{text}");
        }
    }
}
