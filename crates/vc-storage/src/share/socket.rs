//! The two ends of a vhost-user connection.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};

/// `virtiofsd` takes a listening socket, a VMM a connected one.
pub(super) struct SocketPair {
    pub(super) listener: OwnedFd,
    pub(super) vmm_end: OwnedFd,
}

/// Makes both ends. The name lives only until they are connected, in a directory that belongs to
/// the caller alone, so nobody else can be the one connection that is served.
pub(super) fn pair(directory: &Path) -> Result<SocketPair> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);

    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("share-{}-{number}.sock", std::process::id());
    let make = || -> io::Result<SocketPair> {
        let opened = File::open(directory)?;
        // By the descriptor, because a socket's path is limited to 108 bytes.
        let path: PathBuf = format!("/proc/self/fd/{}", opened.as_raw_fd()).into();
        let path = path.join(&name);
        let listener = UnixListener::bind(&path)?;
        let connected = UnixStream::connect(&path);
        std::fs::remove_file(&path)?;
        Ok(SocketPair {
            listener: listener.into(),
            vmm_end: connected?.into(),
        })
    };
    make().map_err(|source| Error::Socket {
        directory: directory.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_connected_and_the_name_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let pair = pair(&deep).unwrap();
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 0);
        let listener = UnixListener::from(pair.listener);
        listener.set_nonblocking(true).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = pair(Path::new("/no/such/place")).err().unwrap();
        assert!(error.to_string().contains("/no/such/place"));
    }
}
