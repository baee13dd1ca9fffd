use std::fs;
use std::path::PathBuf;

use crate::error::Result;
use crate::namespace::{Namespace, NamespaceId};

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

    /// The one with this id, if anybody is in it or it has a name; what an earlier caller called the
    /// host's network may not be the caller's.
    pub(super) fn find(id: NamespaceId) -> Option<Self> {
        let entries = |directory| fs::read_dir(directory).into_iter().flatten().flatten();
        let processes = entries("/proc").map(|entry| entry.path().join("ns/net"));
        let named = entries("/run/netns").map(|entry| entry.path());
        // What is no namespace, or has vanished meanwhile, is none of those looked for.
        let mut opened = named
            .chain(processes)
            .filter_map(|path| Namespace::open_any(path).ok());
        opened.find(|namespace| namespace.id() == id).map(Self)
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.0
    }
}
