use std::path::PathBuf;

use crate::error::Result;
use crate::namespace::Namespace;

/// The network behind which machines get addresses: that of the host, or of a namespace that stands
/// for it. No other part of this crate changes it.
#[derive(Debug)]
pub struct HostNetwork(Namespace);

impl HostNetwork {
    /// The network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] when it cannot be opened.
    pub fn of_caller() -> Result<Self> {
        Self::at("/proc/thread-self/ns/net")
    }

    /// The network namespace at `path`, where nothing of the host's own is to be changed.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NamespaceGone`], [`crate::Error::NotANetworkNamespace`], and
    /// [`crate::Error::Io`] when it cannot be opened.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self> {
        Namespace::open_any(path.into()).map(Self)
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.0
    }
}
