use std::path::PathBuf;

use crate::setting::{choice, section};

choice! {
    /// How long the guest may keep what it read from a share.
    pub enum ShareCache {
        /// Until the file may have changed on the host.
        Auto = "auto",
        /// For ever: right where the host does not change what is shared.
        Always = "always",
    }
}

section! {
    /// The file systems that are shared with the guest.
    pub struct Share at "share" {
        /// The virtiofsd program.
        pub virtiofsd: Option<PathBuf> = None,
            unset "the first of `/usr/local/libexec/virtcontainers/virtiofsd`, `/usr/libexec/virtcontainers/virtiofsd`, `/var/cache/virtcontainers/tools/virtiofsd` that exists";
        /// How long the guest may keep what it read from a share of the user's files.
        pub cache: ShareCache = ShareCache::Auto;
    }
}

impl Share {
    /// Where the program is looked for when `virtiofsd` is not set.
    pub const VIRTIOFSD_CANDIDATES: &'static [&'static str] = &[
        "/usr/local/libexec/virtcontainers/virtiofsd",
        "/usr/libexec/virtcontainers/virtiofsd",
        "/var/cache/virtcontainers/tools/virtiofsd",
    ];

    /// The program: `virtiofsd`, or the first candidate that exists.
    pub fn find_virtiofsd(&self) -> Option<PathBuf> {
        super::find(self.virtiofsd.as_deref(), Self::VIRTIOFSD_CANDIDATES)
    }
}
