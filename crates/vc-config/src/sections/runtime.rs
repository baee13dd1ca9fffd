use std::path::PathBuf;

use crate::annotation::AllowedKeys;
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
    /// Which cgroup of the host the processes of a container's or pod's machine are in.
    pub enum SandboxCgroup {
        /// One of the machine's own below `/virtcontainers`.
        Own = "own",
        /// One of the machine's own below the pod's.
        Pod = "pod",
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
        /// What runs the guest's instructions. `auto` is KVM where it can run the guest's
        /// kernel, otherwise TCG.
        pub accelerator: Accelerator = Accelerator::Auto;
        /// Which cgroup of the host the VMM and the device processes of a container or pod are in: one
        /// below `/virtcontainers` (`own`), or one beside that of the first container, below the
        /// pod's, where an engine names such a one (`pod`). What limits the pod limits its machine then,
        /// whose memory and own needs the pod's overhead has to cover.
        pub sandbox_cgroup: SandboxCgroup = SandboxCgroup::Own;
        /// The keys that annotations of a bundle may set for its sandbox, each matched whole.
        pub annotations: AllowedKeys = AllowedKeys::default();
        /// The directories with the configuration files and programs that containerd's options
        /// for a runtime may name (`ConfigPath`, `BinaryName`).
        pub option_paths: Vec<PathBuf> = vec![PathBuf::from("/etc/virtcontainers")];
    }
}
