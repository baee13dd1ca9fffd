use std::path::PathBuf;

use crate::rate::Rate;
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

choice! {
    /// How the links of a network namespace reach a machine.
    pub enum Interworking {
        /// A tap beside each link, and a filter on both that hands to the other what it receives.
        Tcfilter = "tcfilter",
        /// A macvtap on each link that can have one, a tap and filters for the others.
        Macvtap = "macvtap",
        /// The link itself; each must be a tap.
        None = "none",
    }
}

choice! {
    /// How a network card of the host reaches a machine.
    pub enum Physical {
        /// As every other link does.
        Join = "join",
        /// As a whole, by VFIO: the host's driver lets go of it.
        Pass = "pass",
    }
}

choice! {
    /// Whether the host's kernel moves the frames of a tap.
    pub enum Vhost {
        /// Where it can.
        Auto = "auto",
        /// Or an error.
        On = "on",
        /// The VMM does.
        Off = "off",
    }
}

section! {
    /// How what is in a network namespace reaches a machine, and the networks of throw-away VMs:
    /// `--net nat`, of which there is one private network on a host, and `--net user`.
    pub struct Network at "network" {
        /// How links of a namespace reach the machine: by a tap and filters (`tcfilter`), by a macvtap
        /// on each link that can have one (`macvtap`), or by themselves (`none`), where each must be a
        /// tap. A link that is a tap always reaches it by itself.
        pub interworking: Interworking = Interworking::Tcfilter;
        /// How a link of a namespace that is a network card on PCI reaches the machine: as every other
        /// link does (`join`), or as a whole by VFIO (`pass`), which needs an IOMMU that is on and the
        /// driver `vfio-pci`, and holds the machine's memory. The host's driver gets it back.
        pub physical: Physical = Physical::Join;
        /// Pairs of queues of each interface, and no more than the machine has processors.
        pub queues: u32 = 1, in 1..=16;
        /// Whether the host's kernel moves the frames (vhost-net). `auto` is where `/dev/vhost-net` is
        /// there and works, otherwise QEMU moves them.
        pub vhost: Vhost = Vhost::Auto;
        /// What each interface receives at most. A macvtap cannot be limited so.
        pub receive_rate: Option<Rate> = None, in 8_000..=1_000_000_000_000, unset "no limit";
        /// What each interface sends at most. A link that is itself a tap cannot be limited so.
        pub send_rate: Option<Rate> = None, in 8_000..=1_000_000_000_000, unset "no limit";
        /// The bridge's name: a letter, then up to five letters and digits, in lower case.
        pub nat_bridge: String = "virtc0".to_owned();
        /// The addresses behind it, a network of IPv4 that nobody else on the host uses.
        pub nat_subnet: String = "10.89.199.0/24".to_owned();
        /// The same of IPv6, or `none`. It is used where the host has IPv6 and a default route of it.
        pub nat_subnet6: String = "fd76:6331:c7::/64".to_owned();
        /// The directory that says who has which address. It must be gone after a boot.
        pub nat_dir: PathBuf = PathBuf::from("/run/virtcontainers-nat");
        /// Whether connections that are made inside a sandbox's network namespace to its loopback
        /// addresses come to those of the guest, which a port-forward of Kubernetes needs. Programs
        /// that are in the namespace themselves do not reach each other by them then.
        pub loopback_relay: bool = false;
        /// Who makes the connections of `--net user`. `auto` is `passt` where the host has it and a
        /// default route, otherwise QEMU; and QEMU for published ports of UDP that only it answers.
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
