//! Where VMs come from.
//!
//! A [`Factory`] gets everything that a VM is to have, and the driver that can make it, and gives
//! a VM whose VMM runs. [`Direct`] has the driver launch one; a factory that clones a template or
//! keeps VMs waiting decides whether what it has serves the request, and launches one where not.

mod direct;

use std::fmt;

use async_trait::async_trait;
pub use vc_hypervisor::{Capabilities, Hypervisor, Result, Vm, VmSpec};

pub use direct::Direct;

/// Where the VMs of a runtime come from.
///
/// ```
/// use virtcontainers::factory::{Direct, Factory, Hypervisor, Obtained, Result, VmRequest};
///
/// /// Counts the VMs that it gives.
/// #[derive(Debug, Default)]
/// struct Counting(std::sync::atomic::AtomicUsize);
///
/// #[async_trait::async_trait]
/// impl Factory for Counting {
///     async fn obtain(&self, driver: &dyn Hypervisor, request: VmRequest) -> Result<Obtained> {
///         self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
///         Direct.obtain(driver, request).await
///     }
/// }
/// ```
#[async_trait]
pub trait Factory: fmt::Debug + Send + Sync {
    /// A VM as it is asked for, whose VMM runs and answers. The caller becomes its keeper: it ends
    /// when the returned value is dropped. A failure, or dropping the future, leaves nothing of
    /// the request.
    ///
    /// # Errors
    ///
    /// Those of [`Hypervisor::launch`]. That a faster way does not serve is none: the VM is
    /// launched directly then, and a warning says why.
    async fn obtain(&self, driver: &dyn Hypervisor, request: VmRequest) -> Result<Obtained>;
}

/// A VM that is wanted.
#[derive(Debug)]
#[non_exhaustive]
pub struct VmRequest {
    /// What it is to be and to have.
    pub spec: VmSpec,
}

impl VmRequest {
    /// A request for a VM that is this.
    pub fn new(spec: VmSpec) -> Self {
        Self { spec }
    }
}

/// A VM that a factory gave.
#[non_exhaustive]
pub struct Obtained {
    /// The VM.
    pub vm: Box<dyn Vm>,
    /// How it came to be.
    pub origin: Origin,
}

impl Obtained {
    /// A VM that came to be in this way.
    pub fn new(vm: Box<dyn Vm>, origin: Origin) -> Self {
        Self { vm, origin }
    }
}

impl fmt::Debug for Obtained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Obtained")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// How a VM came to be, for whoever prepares its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Its own guest boots, and says when it is ready.
    Booted,
}
