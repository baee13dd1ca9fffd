use vc_types::{ByteSize, VmSize};

use crate::host::HostFacts;
use crate::setting::section;

section! {
    /// The size of a VM.
    pub struct Vm at "vm" {
        /// Processors.
        pub vcpus: Option<u32> = None, in 1..=VCPUS_MAX,
            unset "as many as the host has, at most 4";
        /// Memory.
        pub memory: Option<ByteSize> = None, in MEMORY_MIN.bytes()..=(1 << 42),
            unset "2 GiB, or half of what the host has available where that is less";
        /// Processors that it can grow to while it runs, where limits ask for them.
        pub vcpus_max: Option<u32> = None, in 1..=VCPUS_MAX,
            unset "as many as the host has, at most 8, or four times those of its start";
        /// Memory that it can grow to while it runs, where limits ask for it.
        pub memory_max: Option<ByteSize> = None, in MEMORY_MIN.bytes()..=(1 << 42),
            unset "three quarters of the host's, at most 256 GiB";
    }
}

/// q35 without interrupt remapping addresses this many.
const VCPUS_MAX: u64 = 255;

/// From here on, sizes that are chosen by what the host has are this far apart.
const MEMORY_STEP: ByteSize = ByteSize::from_mib(256);

/// The same for smaller sizes.
const MEMORY_STEP_SMALL: ByteSize = ByteSize::from_mib(64);

/// Below this the guest's kernel and initrd do not fit.
const MEMORY_MIN: ByteSize = ByteSize::from_mib(64);

/// What a guest takes that no limit of its containers counts: its kernel, the agent, their caches.
const MEMORY_OF_GUEST: ByteSize = ByteSize::from_mib(256);

/// The part of memory that a kernel's account of it takes: 64 bytes for each page.
const ACCOUNT_OF_PAGES: u64 = 64;

/// An emulated processor addresses 1 TiB, devices included.
const LARGEST_DEFAULT: ByteSize = ByteSize::from_mib(256 << 10);

const VCPUS_GROWN: u32 = 8;

const VCPUS_DEFAULT: u32 = 4;
const MEMORY_DEFAULT: ByteSize = ByteSize::from_mib(2 << 10);

/// What the containers of a VM may use at most, as far as somebody has said so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Processors, at least one.
    pub vcpus: Option<u32>,
    /// Memory.
    pub memory: Option<ByteSize>,
}

impl Demand {
    /// A size in which so much can be used, and not smaller than `size`. Limits are no claims:
    /// they can be larger than the host, so that they do not raise it over the host's processors
    /// and three quarters of the memory that it has available.
    ///
    /// ```
    /// use vc_config::{Demand, HostFacts, Vm};
    /// use vc_types::ByteSize;
    ///
    /// let host = HostFacts {
    ///     memory_available: ByteSize::from_mib(16 << 10),
    ///     memory_total: ByteSize::from_mib(16 << 10),
    ///     cpus: 8,
    ///     kernel_release: "6.1.0".to_owned(),
    /// };
    /// let demand = Demand {
    ///     vcpus: Some(6),
    ///     memory: Some(ByteSize::from_mib(4 << 10)),
    /// };
    /// let size = demand.raise(Vm::default().size(&host), &host);
    /// assert_eq!((size.vcpus, size.memory.mib()), (6, (4 << 10) + 512));
    /// ```
    pub fn raise(self, size: VmSize, host: &HostFacts) -> VmSize {
        self.raise_beside(ByteSize::from_bytes(0), size, host)
    }

    /// The same for a VM that runs, and has so much of the host's memory already.
    ///
    /// ```
    /// use vc_config::{Demand, HostFacts, Vm};
    /// use vc_types::ByteSize;
    ///
    /// let host = HostFacts {
    ///     memory_available: ByteSize::from_mib(1024),
    ///     memory_total: ByteSize::from_mib(4 << 10),
    ///     cpus: 2,
    ///     kernel_release: "6.1.0".to_owned(),
    /// };
    /// let (size, has) = (Vm::default().size(&host), ByteSize::from_mib(2048));
    /// let demand = Demand { vcpus: None, memory: Some(ByteSize::from_mib(8 << 10)) };
    /// assert_eq!(demand.raise_beside(has, size, &host).memory.mib(), 2048 + 768);
    /// ```
    pub fn raise_beside(self, has: ByteSize, size: VmSize, host: &HostFacts) -> VmSize {
        let vcpus = self.vcpus.map_or(0, |vcpus| vcpus.min(host.cpus));
        let memory = self.memory.map_or(0, |limit| {
            let limit = limit.bytes();
            let beside = MEMORY_OF_GUEST.bytes() + limit / ACCOUNT_OF_PAGES;
            let whole = limit.saturating_add(beside);
            let step = MEMORY_STEP.bytes();
            let more = in_steps(host.memory_available.bytes() / 4 * 3);
            let most = has.bytes().saturating_add(more);
            (whole.div_ceil(step).saturating_mul(step)).min(most)
        });
        size.max(VmSize {
            vcpus,
            memory: ByteSize::from_bytes(memory),
        })
    }
}

impl Vm {
    /// The size of a VM on this host. What is set is taken as it is, rounded up to 2 MiB.
    ///
    /// ```
    /// use vc_config::{HostFacts, Vm};
    /// use vc_types::{ByteSize, VmSize};
    ///
    /// let host = HostFacts {
    ///     memory_available: ByteSize::from_mib(1024),
    ///     memory_total: ByteSize::from_mib(4096),
    ///     cpus: 2,
    ///     kernel_release: "6.1.0".to_owned(),
    /// };
    /// let size = Vm::default().size(&host);
    /// assert_eq!((size.vcpus, size.memory.mib()), (2, 512));
    /// ```
    pub fn size(&self, host: &HostFacts) -> VmSize {
        let vcpus = self.vcpus.unwrap_or_else(|| host.cpus.min(VCPUS_DEFAULT));
        let memory = match self.memory {
            Some(set) => set.bytes().saturating_add((2 << 20) - 1),
            None => in_steps(host.memory_available.bytes() / 2)
                .min(MEMORY_DEFAULT.bytes())
                .max(MEMORY_MIN.bytes()),
        };
        VmSize {
            vcpus: vcpus.max(1),
            memory: ByteSize::from_bytes(memory & !((2 << 20) - 1)),
        }
    }

    /// What a VM can grow to that begins with `size`. It depends on nothing that changes while the
    /// host is up: VMs that can grow equally far can come from one template.
    ///
    /// ```
    /// use vc_config::{HostFacts, Vm};
    /// use vc_types::ByteSize;
    ///
    /// let host = HostFacts {
    ///     memory_available: ByteSize::from_mib(1024),
    ///     memory_total: ByteSize::from_mib(16 << 10),
    ///     cpus: 8,
    ///     kernel_release: "6.1.0".to_owned(),
    /// };
    /// let vm = Vm::default();
    /// let largest = vm.largest(vm.size(&host), &host);
    /// assert_eq!((largest.vcpus, largest.memory.mib()), (8, 12 << 10));
    /// ```
    pub fn largest(&self, size: VmSize, host: &HostFacts) -> VmSize {
        // Each processor that may come takes some of a guest's memory.
        let grown_vcpus = VCPUS_GROWN.max(size.vcpus.saturating_mul(4));
        let memory = match self.memory_max {
            Some(set) => set.bytes() & !((2 << 20) - 1),
            None => in_steps(host.memory_total.bytes() / 4 * 3).min(LARGEST_DEFAULT.bytes()),
        };
        size.max(VmSize {
            vcpus: self.vcpus_max.unwrap_or(grown_vcpus.min(host.cpus)),
            memory: ByteSize::from_bytes(memory),
        })
    }
}

/// A size in few steps: VMs of one size can come from one template.
fn in_steps(bytes: u64) -> u64 {
    let step = match bytes >= 2 * MEMORY_STEP.bytes() {
        true => MEMORY_STEP.bytes(),
        false => MEMORY_STEP_SMALL.bytes(),
    };
    bytes / step * step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(available_mib: u32, cpus: u32) -> HostFacts {
        HostFacts {
            memory_available: ByteSize::from_mib(available_mib),
            memory_total: ByteSize::from_mib(available_mib),
            cpus,
            kernel_release: String::new(),
        }
    }

    #[test]
    fn the_default_is_bounded_by_the_host_and_by_four_and_two_gib() {
        let big = Vm::default().size(&host(64 << 10, 96));
        assert_eq!((big.vcpus, big.memory.mib()), (4, 2048));
        let small = Vm::default().size(&host(1001, 1));
        assert_eq!((small.vcpus, small.memory.mib()), (1, 448));
        let middle = Vm::default().size(&host(3001, 1));
        assert_eq!(middle.memory.mib(), 1280);
        assert_eq!(Vm::default().size(&host(10, 1)).memory, MEMORY_MIN);
    }

    #[test]
    fn what_is_set_is_taken() {
        let vm = Vm {
            vcpus: Some(7),
            memory: Some(ByteSize::from_bytes((100 << 20) + 1)),
            ..Vm::default()
        };
        let size = vm.size(&host(10, 1));
        assert_eq!((size.vcpus, size.memory.mib()), (7, 102));
    }

    #[test]
    fn limits_raise_a_size_as_far_as_the_host_has_it() {
        let host = host(16 << 10, 8);
        let raised = |vcpus, mib: Option<u32>| {
            let memory = mib.map(ByteSize::from_mib);
            let size = Vm::default().size(&host);
            let size = Demand { vcpus, memory }.raise(size, &host);
            (size.vcpus, size.memory.mib())
        };
        assert_eq!(raised(None, None), (4, 2048));
        assert_eq!(raised(Some(1), Some(100)), (4, 2048));
        assert_eq!(raised(Some(6), Some(2048)), (6, 2560));
        assert_eq!(raised(None, Some(2049)), (4, 2560));
        assert_eq!(raised(Some(64), Some(64 << 10)), (8, 12 << 10));
        let most = Demand {
            vcpus: Some(u32::MAX),
            memory: Some(ByteSize::from_bytes(u64::MAX)),
        };
        let set = VmSize {
            vcpus: 16,
            memory: ByteSize::from_mib(15 << 10),
        };
        assert_eq!(most.raise(set, &host), set);
    }

    #[test]
    fn a_vm_can_always_be_as_large_as_it_is() {
        let vm = Vm {
            vcpus_max: Some(1),
            memory_max: Some(ByteSize::from_mib(1000)),
            ..Vm::default()
        };
        let largest = |mib| {
            let size = VmSize {
                vcpus: 3,
                memory: ByteSize::from_mib(mib),
            };
            vm.largest(size, &host(64 << 10, 8))
        };
        assert_eq!((largest(512).vcpus, largest(512).memory.mib()), (3, 1000));
        assert_eq!(largest(1022).memory.mib(), 1022);
        let huge = Vm::default().largest(largest(512), &host(4 << 20, 8));
        assert_eq!(huge.memory, LARGEST_DEFAULT);
    }
}
