use std::path::PathBuf;

use vc_types::ByteSize;

use crate::setting::section;

section! {
    /// Templates, guests that have booted once and from which VMs go on instead of booting; and the
    /// cache, VMs that have gone on already and wait.
    pub struct Factory at "factory" {
        /// Whether `virtc run` comes from a template where the host has the room. Its first run
        /// makes one.
        pub auto: bool = true;
        /// Whether every VM comes from a template, which is made where there is none.
        pub enable_template: bool = false;
        /// How many VMs wait in the cache. Each takes memory. What was taken is made again by whoever
        /// started a container, behind it and at low priority.
        pub vm_cache_number: u32 = 0, in 0..=64;
        /// The most that all templates take. The one that was not used for the longest time goes
        /// first.
        pub max_bytes: Option<ByteSize> = None, in 0..=(1 << 50),
            unset "an eighth of the host's memory";
        /// The directory in which templates lie, best in memory. Nobody but its owner may look in.
        pub dir: Option<PathBuf> = None,
            unset "`/dev/shm/virtcontainers` where that is in memory and holds 512 MiB, otherwise `/var/cache/virtcontainers/templates`";
    }
}
