use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use crate::error::{Error, Result};

/// Something that threads wait for beside a stream; once it has happened, it has for good.
#[derive(Clone, Debug)]
pub(crate) struct Wake(Arc<OwnedFd>);

impl Wake {
    /// # Errors
    ///
    /// [`Error::System`] where there are no more descriptors.
    pub(crate) fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = eventfd(0, flags).map_err(|error| Error::System {
            attempt: "make an event".into(),
            source: error.into(),
        })?;
        Ok(Self(Arc::new(fd)))
    }

    /// Lets it happen.
    pub(crate) fn wake(&self) {
        // It fails where it has happened 2^64 times.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
