use std::path::PathBuf;

use crate::setting::{choice, section};

choice! {
    /// Who makes the connections of a throw-away VM with `--net user`.
    pub enum UserBackend {
        /// `passt` where the host has it, otherwise QEMU.
        Auto = "auto",
        /// `passt`, or an error.
        Passt = "passt",
        /// QEMU's own network stack.
        Qemu = "qemu",
    }
}

section! {
    /// The networks of throw-away VMs: `--net nat`, of which there is one private network on a host,
    /// and `--net user`.
    pub struct Network at "network" {
        /// The bridge's name: a letter, then up to five letters and digits, in lower case.
        pub nat_bridge: String = "virtc0".to_owned();
        /// The addresses behind it, a network of IPv4 that nobody else on the host uses.
        pub nat_subnet: String = "10.89.199.0/24".to_owned();
        /// The directory that says who has which address. It must be gone after a boot.
        pub nat_dir: PathBuf = PathBuf::from("/run/virtcontainers-nat");
        /// Whether connections that are made inside a sandbox's network namespace to its loopback
        /// addresses come to those of the guest, which a port-forward of Kubernetes needs. Programs
        /// that are in the namespace themselves do not reach each other by them then.
        pub loopback_relay: bool = false;
        /// Who makes the connections of `--net user`. `auto` is `passt` where the host has it and a
        /// default route, otherwise QEMU.
        pub user_backend: UserBackend = UserBackend::Auto;
        /// The program `passt`.
        pub passt: Option<PathBuf> = None, unset "the first of `/usr/bin/passt` and \
            `/usr/local/bin/passt` that exists";
    }
}

impl Network {
    /// Where `passt` is looked for.
    pub const PASST_CANDIDATES: [&str; 2] = ["/usr/bin/passt", "/usr/local/bin/passt"];

    /// The program `passt`, if there is one.
    pub fn find_passt(&self) -> Option<PathBuf> {
        super::find(self.passt.as_deref(), &Self::PASST_CANDIDATES)
    }
}
