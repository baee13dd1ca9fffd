//! vhost-net: the host's kernel moves the frames of a tap to and from the machine.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::ioctl;

/// The features that a VMM cannot do without: indirect descriptors, and virtio as it is since 1.0.
const FEATURES: u64 = 1 << 28 | 1 << 32;

/// The host's vhost-net, as far as it has one.
///
/// ```
/// let vhost = vc_network::VhostNet::default();
/// match vhost.open(2) {
///     Ok(descriptors) => assert_eq!(descriptors.len(), 2),
///     Err(error) => println!("the VMM moves the frames itself: {error}"),
/// }
/// ```
#[derive(Clone, Debug)]
pub struct VhostNet {
    device: PathBuf,
}

impl Default for VhostNet {
    fn default() -> Self {
        Self::at("/dev/vhost-net")
    }
}

impl VhostNet {
    /// The one whose device is at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            device: path.into(),
        }
    }

    /// Where its device is.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Opens it, once for each of so many queues. They belong to nobody before a VMM takes them.
    ///
    /// # Errors
    ///
    /// What `open` says, and [`io::ErrorKind::Unsupported`] for a device that is not vhost-net, or one
    /// that can too little.
    pub fn open(&self, queues: usize) -> io::Result<Vec<OwnedFd>> {
        (0..queues).map(|_| self.open_one()).collect()
    }

    fn open_one(&self) -> io::Result<OwnedFd> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.device)?;
        match ioctl::vhost_features(device.as_fd()) {
            Ok(features) if features & FEATURES == FEATURES => Ok(device.into()),
            Ok(features) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("its features {features:#x} are too few"),
            )),
            Err(error) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("it is not vhost-net: {error}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_and_what_is_another_device_are_told_apart() {
        let error = VhostNet::at("/nonexistent/vhost-net").open(1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        // It opens, and knows nothing of vhost.
        let error = VhostNet::at("/dev/zero").open(1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}
