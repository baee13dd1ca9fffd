use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::fstatfs;
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, io};
use crate::ioctl::namespace_type;
use crate::nat::HostNetwork;
use crate::netlink::Netlink;

/// The namespace of the host's first process is the host's.
const HOST_NAMESPACE: &str = "/proc/1/ns/net";

/// Where that may not be looked at, in a container that has lost the right: the caller's own.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Which network namespace it is, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

impl NamespaceId {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// An open network namespace that is not the host's. It lives at least as long as this.
///
/// ```no_run
/// use vc_network::{Namespace, Scan};
///
/// let namespace = Namespace::open("/run/netns/web")?;
/// for link in Scan::of(&namespace)?.links {
///     println!("{} {:?}", link.name, link.mac);
/// }
/// // Whatever else is to be done inside.
/// let listener = namespace.run(|| std::net::TcpListener::bind("127.0.0.1:0"))?;
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
    id: NamespaceId,
}

impl Namespace {
    /// Opens the network namespace at `path`, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    ///
    /// [`Error::NamespaceGone`] where nothing is, [`Error::NotANetworkNamespace`] for any other file,
    /// [`Error::HostNamespace`] for that of the host, [`Error::Io`] when a system call fails.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let namespace = Self::open_any(path.into())?;
        if namespace.id == host()? {
            let path = namespace.path;
            return Err(Error::HostNamespace { path });
        }
        Ok(namespace)
    }

    /// The same for a caller that is not in the host's network any more, and may not look at it
    /// either: `host` is what it was in before.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::open`].
    pub fn open_beside(path: impl Into<PathBuf>, host: &HostNetwork) -> Result<Self> {
        let namespace = Self::open_any(path.into())?;
        if namespace.id == host.namespace().id {
            let path = namespace.path;
            return Err(Error::HostNamespace { path });
        }
        Ok(namespace)
    }

    /// Opens any network namespace, for those who look only for what they have added to one.
    pub(crate) fn open_any(path: PathBuf) -> Result<Self> {
        let file = open_file(&path)?;
        let stat = fstatfs(&file).map_err(io("look at", path.display()))?;
        if i128::from(stat.f_type) != i128::from(libc::NSFS_MAGIC) {
            let found = "a file of another file system";
            return Err(Error::NotANetworkNamespace { path, found });
        }
        if namespace_type(file.as_fd()).map_err(io("look at", path.display()))?
            != libc::CLONE_NEWNET
        {
            let found = "a namespace of another kind";
            return Err(Error::NotANetworkNamespace { path, found });
        }
        let id = NamespaceId::of(&file).map_err(io("look at", path.display()))?;
        Ok(Self { file, path, id })
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which one it is.
    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// Calls `act` on a thread of its own inside the namespace, and waits for it. A panic of `act`
    /// goes on in the caller.
    ///
    /// Sockets and taps that it opens stay in the namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the namespace cannot be entered, or with the error of `act`.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
        self.run_io(act)
            .map_err(io("act in the network namespace", self.path.display()))
    }

    /// The same, for those who say themselves what was tried.
    pub(crate) fn run_io<T: Send>(
        &self,
        act: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        on_own_thread(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            act()
        })
    }

    /// A connection to the kernel's settings of this namespace, for any thread to use.
    pub(crate) fn netlink(&self) -> Result<Netlink> {
        self.run(Netlink::open)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open_file(path: &Path) -> Result<File> {
    let opened = File::options()
        .read(true)
        // A pipe in its place must not stop us.
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    opened.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::SRCH) => Error::NamespaceGone {
            path: path.to_owned(),
        },
        Some(Errno::NXIO) => Error::NotANetworkNamespace {
            path: path.to_owned(),
            found: "a socket or a device",
        },
        _ => io("open the network namespace", path.display())(error),
    })
}

fn host() -> Result<NamespaceId> {
    let of = |path| File::open(path).and_then(|file| NamespaceId::of(&file));
    match of(HOST_NAMESPACE) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => of(OWN_NAMESPACE),
        other => other,
    }
    .map_err(io("look at the host's network namespace", HOST_NAMESPACE))
}

/// Calls `act` on a thread that may change its namespaces, because it ends after that.
pub(super) fn on_own_thread<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("network".to_owned())
            .spawn_scoped(scope, act)?
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}
