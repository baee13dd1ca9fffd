use std::path::PathBuf;

use crate::setting::{choice, section};

choice! {
    /// On how many threads of the host a machine's processors are emulated.
    pub enum TcgThreads {
        /// One for each where that is safe, otherwise one.
        Auto = "auto",
        /// One: they take turns.
        Single = "single",
        /// One for each.
        Multi = "multi",
    }
}

section! {
    /// QEMU and its machine.
    pub struct Qemu at "hypervisor.qemu" {
        /// The program.
        pub path: Option<PathBuf> = None,
            unset "the first of `/usr/bin/qemu-system-x86_64`, `/usr/local/bin/qemu-system-x86_64`, `/usr/libexec/qemu-kvm` that exists";
        /// The firmware: qboot, which hands over to an unpacked kernel.
        pub firmware: Option<PathBuf> = None,
            unset "the first of `/usr/share/qemu/qboot.rom`, `/usr/share/qemu-kvm/qboot.rom`, `/usr/local/share/qemu/qboot.rom` that exists";
        /// On how many threads of the host a machine's processors are emulated where there is no
        /// KVM. `auto` is one for each from QEMU 8.1 on, and otherwise one, since with an older
        /// QEMU a guest on several can hang for ever.
        pub tcg_threads: TcgThreads = TcgThreads::Auto;
        /// Root ports for devices that are plugged while the VM runs.
        pub root_ports: u32 = 16, in 0..=32;
        /// The same for a throw-away VM.
        pub root_ports_throwaway: u32 = 4, in 0..=32;
    }
}

impl Qemu {
    /// Where the program is looked for when `path` is not set.
    pub const PATH_CANDIDATES: &'static [&'static str] = &[
        "/usr/bin/qemu-system-x86_64",
        "/usr/local/bin/qemu-system-x86_64",
        "/usr/libexec/qemu-kvm",
    ];

    /// Where the firmware is looked for when `firmware` is not set.
    pub const FIRMWARE_CANDIDATES: &'static [&'static str] = &[
        "/usr/share/qemu/qboot.rom",
        "/usr/share/qemu-kvm/qboot.rom",
        "/usr/local/share/qemu/qboot.rom",
    ];

    /// The program: `path`, or the first candidate that exists.
    pub fn find_path(&self) -> Option<PathBuf> {
        super::find(self.path.as_deref(), Self::PATH_CANDIDATES)
    }

    /// The firmware: `firmware`, or the first candidate that exists.
    pub fn find_firmware(&self) -> Option<PathBuf> {
        super::find(self.firmware.as_deref(), Self::FIRMWARE_CANDIDATES)
    }
}
