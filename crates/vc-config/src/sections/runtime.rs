use std::path::PathBuf;

use crate::setting::{choice, section};

choice! {
    /// What runs the guest's instructions.
    pub enum Accelerator {
        /// KVM where it can run the guest's kernel, otherwise TCG.
        Auto = "auto",
        /// KVM, or an error.
        Kvm = "kvm",
        /// QEMU's translator, on any machine.
        Tcg = "tcg",
    }
}

choice! {
    /// The least severe message that is logged.
    pub enum LogLevel {
        /// What was asked did not happen.
        Error = "error",
        /// Odd, but it went on.
        Warn = "warn",
        /// Life-cycle events.
        Info = "info",
        /// For developers.
        Debug = "debug",
        /// Bytes on the wire.
        Trace = "trace",
    }
}

section! {
    /// What concerns every sandbox.
    pub struct Runtime at "runtime" {
        /// The directory that holds the state of the sandboxes, a directory each.
        pub root: PathBuf = PathBuf::from("/run/virtcontainers");
        /// The directory that keeps the records of starts that failed.
        pub failures: PathBuf = PathBuf::from("/var/log/virtcontainers");
        /// How many of these records are kept, the newest ones.
        pub failures_kept: u32 = 20, in 1..=1_000;
        /// The least severe message that is logged.
        pub log_level: LogLevel = LogLevel::Warn;
        /// What runs the guest's instructions. `auto` is KVM where it can run the guest's
        /// kernel, otherwise TCG.
        pub accelerator: Accelerator = Accelerator::Auto;
    }
}
