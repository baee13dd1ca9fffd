//! Waiting in the runtime for a descriptor that no type of it is for: a pidfd, a netlink socket.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A descriptor that the runtime watches until it can be read; a pidfd can when its process has
/// ended.
#[derive(Debug)]
pub struct WatchedFd(AsyncFd<OwnedFd>);

impl WatchedFd {
    /// Registers it with the running executor.
    ///
    /// # Errors
    ///
    /// What the system says about watching one more descriptor.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        #[allow(unsafe_code, reason = "the runtime has no other way for it")]
        // SAFETY: an `OwnedFd` is open for as long as it lives; it moves into the `AsyncFd`, and
        // nothing here takes or replaces it before that is dropped.
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits until it can be read, or the process has ended.
    ///
    /// # Errors
    ///
    /// When the executor ends.
    pub async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.readable().await
    }
}
