//! How much room a template needs, before it is made.

use vc_types::ByteSize;

/// What a template needs at least: a guest that has booted has touched less.
const WANTED: ByteSize = ByteSize::from_mib(224);

/// The part of its memory in which a kernel describes the pages of it: 64 bytes for 4096.
const PAGES_DESCRIBED_PART: u64 = 64;

/// The part of its size that an empty file system takes: two blocks of bitmaps for each 128 MiB, and
/// little besides.
const SCRATCH_PART: u64 = 8192;

/// By which the room for a template is found before it is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) memory: ByteSize,
    /// How large its scratch disk is.
    pub(super) scratch: Option<ByteSize>,
}

impl Wanted {
    /// What it may take at most.
    pub(super) fn bytes(self) -> u64 {
        let scratch = self.scratch.map_or(0, |size| size.bytes() / SCRATCH_PART);
        WANTED.bytes() + self.memory.bytes() / PAGES_DESCRIBED_PART + scratch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_with_a_machine_is_counted() {
        let gib = |n: u32| ByteSize::from_mib(n << 10);
        let mib = |memory, scratch| Wanted { memory, scratch }.bytes() >> 20;
        assert_eq!(mib(gib(2), None), 256);
        assert_eq!(mib(gib(2), Some(gib(8))), 257);
        assert_eq!(mib(gib(64), Some(gib(1024))), 224 + 1024 + 128);
    }
}
