//! Waiting for a pidfd in the runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A pidfd that the runtime watches.
#[derive(Debug)]
pub struct WatchedPidfd(AsyncFd<OwnedFd>);

impl WatchedPidfd {
    /// Registers it with the running executor.
    ///
    /// # Errors
    ///
    /// What the system says about watching one more descriptor.
    pub fn new(pidfd: OwnedFd) -> io::Result<Self> {
        #[allow(unsafe_code, reason = "the runtime has no other way for a pidfd")]
        // SAFETY: an `OwnedFd` is open for as long as it lives; it moves into the `AsyncFd`, and
        // nothing here takes or replaces it before that is dropped.
        let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    ///
    /// When the executor ends.
    pub async fn ended(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.readable().await
    }
}
