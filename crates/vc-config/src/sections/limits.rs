use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::setting::{Kind, Setting, section};

/// A number of milliseconds that something may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// The same as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

impl Setting for Millis {
    const KIND: Kind = Kind::Milliseconds;

    fn read(value: toml::Value) -> Result<Self, String> {
        let number = value.as_integer().and_then(|n| u64::try_from(n).ok());
        number
            .map(Self)
            .ok_or_else(|| format!("{value} is not a whole number of milliseconds"))
    }

    fn show(&self) -> Option<toml::Value> {
        i64::try_from(self.0).ok().map(toml::Value::Integer)
    }

    fn number(&self) -> Option<u64> {
        Some(self.0)
    }
}

/// No wait is longer than an hour.
const HOUR: u64 = 3_600_000;

section! {
    /// How long each wait may take. The error of a wait that took longer names its key.
    pub struct Limits at "limits" {
        /// From the VMM's start until the agent says that it is ready; where it goes on from a template, until it has
        /// answered its first call.
        pub agent_ready_ms: Millis = Millis(60_000), in 100..=HOUR;
        /// One connection to a port of the guest.
        pub agent_connect_ms: Millis = Millis(10_000), in 100..=HOUR;
        /// One call of the agent that mounts or makes something, its answer included.
        pub agent_create_ms: Millis = Millis(60_000), in 100..=HOUR;
        /// Any other call of the agent, its answer included.
        pub agent_call_ms: Millis = Millis(30_000), in 100..=HOUR;
        /// From one correction of the guest's clock to the next.
        pub clock_ms: Millis = Millis(60_000), in 100..=HOUR;
        /// One command to QEMU.
        pub qmp_command_ms: Millis = Millis(10_000), in 100..=HOUR;
        /// From the request to a guest to let go of a device until it has.
        pub unplug_ms: Millis = Millis(10_000), in 100..=HOUR;
        /// From the offer of memory to a guest until it has taken it.
        pub resize_ms: Millis = Millis(30_000), in 100..=HOUR;
        /// The start of one process of ours, until it serves.
        pub launch_ms: Millis = Millis(10_000), in 100..=HOUR;
        /// From the VMM's order to end until it is killed.
        pub stop_vmm_ms: Millis = Millis(2_000), in 0..=HOUR;
        /// From a process's end until the ends of its streams, while their readers take what
        /// comes.
        pub drain_ms: Millis = Millis(10_000), in 0..=HOUR;
        /// From the polite signal of `--timeout` until the command is killed.
        pub kill_after_timeout_ms: Millis = Millis(10_000), in 0..=HOUR;
        /// A second SIGINT or SIGTERM that comes within this time ends the VM.
        pub second_signal_ms: Millis = Millis(2_000), in 0..=HOUR;
        /// From a SIGHUP until the VM is ended.
        pub hangup_ms: Millis = Millis(10_000), in 0..=HOUR;
        /// One hook of a bundle that has no `timeout` of its own.
        pub hook_ms: Millis = Millis(60_000), in 100..=HOUR;
        /// The wait for the lock of a sandbox's state.
        pub lock_ms: Millis = Millis(5_000), in 10..=HOUR;
        /// The wait for another operation on the same sandbox, as the making of a container.
        pub operation_ms: Millis = Millis(60_000), in 10..=HOUR;
        /// From the polite signal to a container that is stopped until it is killed.
        pub stop_container_ms: Millis = Millis(10_000), in 0..=HOUR;
        /// From the kill of a container until it has to be gone.
        pub kill_container_ms: Millis = Millis(10_000), in 10..=HOUR;
        /// The wait for the owner of an operation that is taken over to go.
        pub take_over_ms: Millis = Millis(5_000), in 10..=HOUR;
    }
}
