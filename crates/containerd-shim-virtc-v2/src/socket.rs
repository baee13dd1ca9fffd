//! The socket that a shim serves: in a short directory by a digest, as the names that go into it
//! would not fit into the path of a socket.

use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Where all shims have theirs.
const DIRECTORY: &str = "/run/containerd/s";

/// Bytes of the digest in a name.
const DIGEST_BYTES: usize = 32;

/// A socket's path, which is known by the names alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShimSocket(PathBuf);

impl ShimSocket {
    /// That of a sandbox in a namespace of the containerd at `address`.
    pub(crate) fn of(address: &str, namespace: &str, sandbox: &str) -> Self {
        let mut digest = Sha256::new();
        // With their lengths: no two triples are one text.
        for part in [address, namespace, sandbox] {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        let digest = digest.finalize();
        let name: String = digest[..DIGEST_BYTES]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self(Path::new(DIRECTORY).join(name))
    }

    /// As containerd wants it.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.0.display())
    }

    /// Whether somebody serves it.
    pub(crate) fn is_served(&self) -> bool {
        UnixStream::connect(&self.0).is_ok()
    }

    /// Waits until nobody serves it any more, at most for `limit`: whoever does keeps a connection open
    /// for as long.
    pub(crate) fn wait_for_end(&self, limit: Duration) {
        let ended = UnixStream::connect(&self.0).and_then(|mut connection| {
            connection.set_read_timeout(Some(limit))?;
            connection.read(&mut [0])
        });
        if let Err(error) = ended
            && error.kind() == io::ErrorKind::WouldBlock
        {
            tracing::warn!(socket = %self.0.display(), "a shim does not end");
        }
    }

    /// Listens. One that a killed shim has left is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when somebody serves it, [`Error::System`].
    pub(crate) fn listen(&self) -> Result<UnixListener> {
        let failed = |source| Error::System {
            attempt: format!("listen at {}", self.0.display()),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(DIRECTORY)
            .map_err(failed)?;
        match UnixListener::bind(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if self.is_served() {
                    return Err(Error::Exists {
                        what: format!("a shim at {}", self.0.display()),
                    });
                }
                self.remove();
                UnixListener::bind(&self.0).map_err(failed)
            }
            bound => bound.map_err(failed),
        }
    }

    /// Takes its name away. One that is not there is no error.
    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_names_have_a_short_path_of_their_own() {
        let long = "n".repeat(76);
        let all = [
            ShimSocket::of("/run/containerd.sock", &long, &long),
            ShimSocket::of("/run/containerd.sock", "a", "bc"),
            ShimSocket::of("/run/containerd.sock", "ab", "c"),
            ShimSocket::of("/run/other.sock", "a", "bc"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(one.0.as_os_str().len() < 100);
            assert!(all[index + 1..].iter().all(|other| other != one));
        }
        assert!(all[1].address().starts_with("unix:///run/containerd/s/"));
    }
}
