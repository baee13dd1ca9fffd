use std::fmt;

use serde::{Deserialize, Serialize};

/// Why something ended that did not end by its own will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EndReason {
    /// The VMM ended, or the guest panicked; what is known about it.
    VmCrashed {
        /// Words for a person.
        detail: String,
    },
    /// A device process of the VM ended.
    DeviceProcessEnded {
        /// Which one.
        name: String,
    },
    /// The keeper ended, so the VM was ended too.
    KeeperEnded,
    /// The host was booted again.
    HostRebooted,
    /// Somebody asked for it.
    Requested,
    /// A time limit that the caller set passed.
    TimedOut,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VmCrashed { detail } => write!(f, "the VM crashed: {detail}"),
            Self::DeviceProcessEnded { name } => write!(f, "the device process {name} ended"),
            Self::KeeperEnded => f.write_str("its keeper ended"),
            Self::HostRebooted => f.write_str("the host was booted again"),
            Self::Requested => f.write_str("it was asked to end"),
            Self::TimedOut => f.write_str("its time limit passed"),
        }
    }
}

/// How a container's process ended.
///
/// It is only a success when the guest's agent said so.
///
/// ```
/// use vc_types::ExitStatus;
///
/// assert_eq!(ExitStatus::Code(7).shell_code(), 7);
/// assert_eq!(ExitStatus::Signal { signal: 15, oom: false }.shell_code(), 143);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ExitStatus {
    /// It ended by itself with this code.
    #[serde(rename = "code")]
    Code(#[serde(with = "code")] u8),
    /// A signal ended it.
    Signal {
        /// The signal's number, real-time signals included (1–64).
        signal: u8,
        /// The guest was out of memory and chose this process.
        oom: bool,
    },
    /// It was lost with its VM.
    Lost {
        /// Why.
        #[serde(flatten)]
        reason: EndReason,
    },
}

mod code {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Code {
        code: u8,
    }

    pub(super) fn serialize<S: Serializer>(code: &u8, serializer: S) -> Result<S::Ok, S::Error> {
        Code { code: *code }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
        Ok(Code::deserialize(deserializer)?.code)
    }
}

impl ExitStatus {
    /// The code as a shell shows it: 128 + N for signal N, and 137 for a process that was lost.
    pub fn shell_code(&self) -> u8 {
        match self {
            Self::Code(code) => *code,
            Self::Signal { signal, .. } => 128u8.saturating_add(*signal),
            Self::Lost { .. } => 128 + 9,
        }
    }

    /// Whether the process ended by itself with code 0.
    pub fn is_success(&self) -> bool {
        *self == Self::Code(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_process_is_never_a_success() {
        let lost = ExitStatus::Lost {
            reason: EndReason::KeeperEnded,
        };
        assert!(!lost.is_success());
        assert_eq!(lost.shell_code(), 137);
    }

    #[test]
    fn every_kind_survives_being_stored() {
        for status in [
            ExitStatus::Code(3),
            ExitStatus::Signal {
                signal: 64,
                oom: true,
            },
            ExitStatus::Lost {
                reason: EndReason::VmCrashed {
                    detail: "panic".into(),
                },
            },
            ExitStatus::Lost {
                reason: EndReason::TimedOut,
            },
        ] {
            let text = serde_json::to_string(&status).unwrap();
            assert_eq!(
                serde_json::from_str::<ExitStatus>(&text).unwrap(),
                status,
                "{text}"
            );
        }
    }
}
