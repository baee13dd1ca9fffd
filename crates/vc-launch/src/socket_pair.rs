//! The two ends of a vhost-user connection, both made here: a device process takes a listening
//! socket, a VMM a connected one.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The two ends.
#[derive(Debug)]
pub struct SocketPair {
    /// The device process's.
    pub listener: OwnedFd,
    /// The VMM's.
    pub connected: OwnedFd,
}

impl SocketPair {
    /// Makes both ends. The name in `directory` lives only until they are connected; where the
    /// directory belongs to the caller alone, nobody else can be the one connection that is
    /// served. The path may be longer than the address of a socket.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let opened = File::open(directory)?;
        // Several are made at the same time.
        let name = format!(
            "pair-{:016x}.sock",
            RandomState::new().build_hasher().finish()
        );
        // By the descriptor, because a socket's path is limited to 108 bytes.
        let path: PathBuf = format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()).into();
        let listener = UnixListener::bind(&path)?;
        let connected = UnixStream::connect(&path);
        std::fs::remove_file(&path)?;
        Ok(Self {
            listener: listener.into(),
            connected: connected?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_connected_and_the_name_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let pair = SocketPair::new(&deep).unwrap();
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 0);
        let listener = UnixListener::from(pair.listener);
        listener.set_nonblocking(true).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        assert!(SocketPair::new(Path::new("/no/such/place")).is_err());
    }
}
