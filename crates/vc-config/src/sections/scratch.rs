use std::path::PathBuf;

use vc_types::ByteSize;

use crate::setting::{choice, section};

choice! {
    /// Where the writable layer lies.
    pub enum ScratchKind {
        /// On a sparse disk of the host, which is gone with the sandbox.
        Disk = "disk",
        /// In the guest's memory.
        Tmpfs = "tmpfs",
    }
}

section! {
    /// The writable layer of a throw-away VM.
    pub struct Scratch at "scratch" {
        /// Where it lies: on a sparse `disk` of the host, or in the guest's memory (`tmpfs`).
        pub kind: ScratchKind = ScratchKind::Disk;
        /// The apparent size of the disk.
        pub size: ByteSize = ByteSize::from_mib(10 << 10), in (16 << 20)..=(64 << 40);
        /// The most that the tmpfs takes.
        pub tmpfs_size: Option<ByteSize> = None, in (1 << 20)..=(1 << 40),
            unset "half of the guest's memory";
        /// The directory on the host in which the disk is made.
        pub dir: PathBuf = PathBuf::from("/var/tmp");
    }
}
