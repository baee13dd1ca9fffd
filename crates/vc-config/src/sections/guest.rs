use std::path::PathBuf;

use crate::setting::section;

section! {
    /// The guest's kernel and initrd.
    pub struct Guest at "guest" {
        /// The directory with `vmlinux`, `initrd` and their manifest.
        pub assets: Option<PathBuf> = None,
            unset "the first of `/usr/local/share/virtcontainers/guest/current`, `/usr/share/virtcontainers/guest/current`, `/var/cache/virtcontainers/guest/current` that exists";
        /// Added to the kernel's command line, one parameter each.
        pub kernel_params: Vec<String> = Vec::new();
    }
}

impl Guest {
    /// Where the assets are looked for when `assets` is not set.
    pub const ASSETS_CANDIDATES: &'static [&'static str] = &[
        "/usr/local/share/virtcontainers/guest/current",
        "/usr/share/virtcontainers/guest/current",
        "/var/cache/virtcontainers/guest/current",
    ];

    /// The directory: `assets`, or the first candidate that exists.
    pub fn find_assets(&self) -> Option<PathBuf> {
        super::find(self.assets.as_deref(), Self::ASSETS_CANDIDATES)
    }
}
