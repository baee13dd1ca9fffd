use std::os::fd::OwnedFd;

/// What the device works with. Everything that is opened is given as a descriptor, so that the
/// process needs no name in the file system and no right to one.
///
/// # Examples
///
/// ```
/// use std::os::unix::net::UnixListener;
/// use vc_vsock_device::Options;
///
/// # fn main() -> std::io::Result<()> {
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let options = Options {
///     vhost_socket: UnixListener::bind(dir.join("vhost"))?.into(),
///     host_socket: UnixListener::bind(dir.join("vsock.sock"))?.into(),
///     guest_cid: 3,
///     upcall_dir: std::fs::File::open(dir)?.into(),
/// };
/// # drop(options);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Options {
    /// A *listening* Unix stream socket. The VMM connects to it once, by name or with a connected
    /// descriptor that it was given; its name may be removed after that.
    pub vhost_socket: OwnedFd,
    /// A listening Unix stream socket for host programs: they write `CONNECT <port>\n` and read
    /// `OK <host port>\n`; a connection that cannot be made is closed without an answer.
    pub host_socket: OwnedFd,
    /// The guest's context id, 3 or more.
    pub guest_cid: u64,
    /// The directory in which a connection that the guest makes to host port P is passed on to
    /// the Unix stream socket `vsock.sock_P`.
    pub upcall_dir: OwnedFd,
}
