//! Which hypervisor driver makes the machines of a runtime.

use std::fmt;
use std::sync::Arc;

use crate::sandbox::surroundings::{Host, Surroundings};

/// Which hypervisor driver makes the machines of a runtime, with what a machine of it needs of the
/// host. A driver for tests is in the module `mock`, with the feature of that name.
#[derive(Clone)]
pub struct Driver(Arc<dyn Surroundings>);

impl Driver {
    /// QEMU, with processes on the host for its vsock and its shares.
    pub fn qemu() -> Self {
        Self::with(Host)
    }

    pub(crate) fn with(surroundings: impl Surroundings + 'static) -> Self {
        Self(Arc::new(surroundings))
    }

    pub(crate) fn surroundings(&self) -> &dyn Surroundings {
        &*self.0
    }
}

impl Default for Driver {
    /// QEMU.
    fn default() -> Self {
        Self::qemu()
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Driver").field(&self.0.name()).finish()
    }
}
