use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Bytes of a Unix socket's path without the zero at its end, see unix(7).
const PATH_BYTES_MAX: usize = 107;

/// The path of a Unix socket, in a form that the kernel takes however long it is.
///
/// One that is too long goes by its directory, which is held open: use it while this lives.
///
/// ```
/// use std::os::unix::net::{UnixListener, UnixStream};
/// use vc_types::SocketPath;
///
/// let directory = tempfile::tempdir()?;
/// let deep = directory.path().join("d".repeat(100));
/// std::fs::create_dir(&deep)?;
/// let socket = deep.join("sock");
/// assert!(UnixListener::bind(&socket).is_err());
/// let listener = UnixListener::bind(SocketPath::new(&socket)?.as_path())?;
/// UnixStream::connect(SocketPath::new(&socket)?.as_path())?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    _directory: Option<File>,
}

impl SocketPath {
    /// The path to bind or to connect to the socket at `path`.
    ///
    /// # Errors
    ///
    /// When it is too long and its directory cannot be opened.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self {
                path: path.to_owned(),
                _directory: None,
            });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = File::open(parent)?;
        let descriptors = PathBuf::from("/proc/self/fd");
        Ok(Self {
            path: descriptors
                .join(directory.as_raw_fd().to_string())
                .join(name),
            _directory: Some(directory),
        })
    }

    /// What the kernel takes.
    pub fn as_path(&self) -> &Path {
        &self.path
    }
}
