//! The command socket's file. An id may be as long as a socket's whole path, so the directory is
//! gone through by descriptor.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstat, lstat, open};
use tokio::net::UnixStream;

/// A socket cannot be opened, but its place can.
const FILE_ITSELF: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The name of the command socket in the sandbox's directory.
pub const COMMANDS_SOCKET: &str = "qmp.sock";

/// A listening socket's file, removed when this is dropped. Another VM's may be there by then, by the
/// same name: that one stays.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// The file itself, so that no later one is taken for it.
    own: OwnedFd,
}

impl SocketFile {
    /// Makes the socket, for its owner alone.
    pub(super) fn listen_in(directory: &Path) -> io::Result<(Self, OwnedFd)> {
        let opened = open_directory(directory)?;
        let listener = UnixListener::bind(through(&opened, COMMANDS_SOCKET))?;
        let path = directory.join(COMMANDS_SOCKET);
        let own = open(&path, FILE_ITSELF, Mode::empty())?;
        let file = Self { path, own };
        fs::set_permissions(&file.path, Permissions::from_mode(0o600))?;
        Ok((file, listener.into()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn is_there(&self) -> io::Result<bool> {
        let (own, there) = (fstat(&self.own)?, lstat(&self.path)?);
        Ok((own.st_dev, own.st_ino) == (there.st_dev, there.st_ino))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let removed = match self.is_there() {
            Ok(true) => fs::remove_file(&self.path),
            there => there.map(drop),
        };
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// Connects to a socket, however long its path is.
pub(super) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let opened = open_directory(directory)?;
    UnixStream::connect(through(&opened, name)).await
}

fn open_directory(directory: &Path) -> io::Result<fs::File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECTORY.bits().cast_signed())
        .open(directory)
}

fn through(directory: &fs::File, name: impl AsRef<Path>) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_longer_than_a_sockets_works_and_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("x".repeat(128));
        fs::create_dir(&long).unwrap();
        let (file, _listener) = SocketFile::listen_in(&long).unwrap();
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(connect(file.path()).await.is_ok());
        assert!(SocketFile::listen_in(&long).is_err(), "it is taken");
        drop(file);
        assert_eq!(fs::read_dir(&long).unwrap().count(), 0);
    }

    #[test]
    fn the_socket_of_a_vm_that_came_later_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (file, _first) = SocketFile::listen_in(directory.path()).unwrap();
        fs::rename(file.path(), directory.path().join("moved")).unwrap();
        let (later, _second) = SocketFile::listen_in(directory.path()).unwrap();
        drop(file);
        assert!(later.path().exists());
    }
}
