use serde::{Deserialize, Serialize};
use vc_types::{ByteSize, VmSize};

/// What Linux takes memory in, and what it takes it in where it has this much from its start (or less, by
/// how its end is aligned).
const STEP: u64 = 128 << 20;
const STEP_OF_LARGE_GUEST: u64 = 2 << 30;
const LARGE_GUEST: ByteSize = ByteSize::from_mib(64 << 10);

/// Between which sizes a VM can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// What it began with.
    pub first: VmSize,
    /// The most that it can have.
    pub largest: VmSize,
}

impl Growth {
    /// How much memory can come: whole steps, since a guest takes no less.
    ///
    /// ```
    /// use vc_hypervisor::Growth;
    /// use vc_types::{ByteSize, VmSize};
    ///
    /// let size = |mib| VmSize { vcpus: 1, memory: ByteSize::from_mib(mib) };
    /// let growth = Growth { first: size(1000), largest: size(2048) };
    /// assert_eq!(growth.room().mib(), 1024);
    /// ```
    pub fn room(self) -> ByteSize {
        let room = self
            .largest
            .memory
            .bytes()
            .saturating_sub(self.first.memory.bytes());
        let step = self.step();
        ByteSize::from_bytes(room / step * step)
    }

    /// How much memory has to come, in whole steps, to make it so large, as far as there is room.
    pub fn more(self, memory: ByteSize) -> ByteSize {
        let more = memory.bytes().saturating_sub(self.first.memory.bytes());
        let steps = more.div_ceil(self.step()).saturating_mul(self.step());
        ByteSize::from_bytes(steps.min(self.room().bytes()))
    }

    /// The blocks in which a guest's kernel takes memory.
    fn step(self) -> u64 {
        match self.first.memory < LARGE_GUEST {
            true => STEP,
            false => STEP_OF_LARGE_GUEST,
        }
    }
}
