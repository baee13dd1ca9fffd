use std::fmt;

use serde::{Deserialize, Serialize};

use crate::size::ByteSize;

/// How large a VM is: that of its start, what it may grow to, or what somebody asks for.
///
/// ```
/// use vc_types::{ByteSize, VmSize};
///
/// let small = VmSize { vcpus: 1, memory: ByteSize::from_mib(512) };
/// let large = VmSize { vcpus: 4, memory: ByteSize::from_mib(256) };
/// assert_eq!(small.max(large), VmSize { vcpus: 4, memory: small.memory });
/// assert_eq!(small.to_string(), "1 processor, 512 MiB");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSize {
    /// Processors, at least one.
    pub vcpus: u32,
    /// Memory.
    pub memory: ByteSize,
}

impl VmSize {
    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.max(other.vcpus),
            memory: self.memory.max(other.memory),
        }
    }

    /// The smaller of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.min(other.vcpus),
            memory: self.memory.min(other.memory),
        }
    }
}

impl fmt::Display for VmSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processors = match self.vcpus {
            1 => "processor",
            _ => "processors",
        };
        write!(f, "{} {processors}, {}", self.vcpus, self.memory)
    }
}
