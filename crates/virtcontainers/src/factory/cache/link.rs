//! The connection between the holder of a waiting machine and whoever takes it.
//!
//! ```text
//! holder ◀── connects ── taker          the first one gets it; nobody else is listened to
//! holder ── Facts ─────▶ taker          the processors run again
//! holder ◀── FilesTaken ── taker        its files are the taker's
//! holder ── Ended ─────▶ taker          why the machine ended
//! ```
//!
//! The connection stays for the machine's life. When the taker's end closes, the holder ends the
//! machine; when the holder's does, the machine has ended with it.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use vc_hypervisor::DriverState;
use vc_hypervisor::watched_fd::WatchedFd;
use vc_store::DeviceProcess;
use vc_types::{EndReason, ProcessIdentity, SocketPath};

/// The holder's socket, in the directory of its machine.
const SOCKET: &str = "take.sock";

/// Bytes of what one says to the other: some thousand.
const MESSAGE_BYTES_MAX: u64 = 64 << 10;

/// How long the other one may take for its next word while a machine changes hands. It has nothing
/// else to do; a machine whose processors do not go on is none to wait for.
pub(crate) const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);

/// Bytes of events that are read at once. One has some dozens.
const EVENT_BYTES: usize = 4096;

/// How long a holder may take to end its machine and itself.
const REFUSED_LIMIT: Duration = Duration::from_secs(10);

/// What a taker has to know of the machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// What the driver knows of it.
    pub(crate) vm: DriverState,
    /// Its device processes, and the holder.
    pub(crate) processes: Vec<DeviceProcess>,
    /// Containers that were made in it so far: names made of these numbers are used.
    pub(crate) containers_made: u64,
    /// What the host's monotonic clock shows when the guest's shows 0, in microseconds.
    pub(crate) guest_epoch: u64,
}

/// What a taker says once the files are its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FilesTaken;

/// What a holder says at the end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) reason: EndReason,
}

/// One end of the connection.
#[derive(Debug)]
pub(crate) struct Link(BufReader<UnixStream>);

impl Link {
    /// Connects to the holder of the machine in `directory`, which must be this process.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::PermissionDenied`] for another one, and what the system says: nobody listens
    /// where the machine is another's by now.
    pub(crate) async fn connect(directory: &Path, holder: &ProcessIdentity) -> io::Result<Self> {
        let socket = SocketPath::new(&directory.join(SOCKET))?;
        let stream = UnixStream::connect(socket.as_path()).await?;
        let peer = stream.peer_cred()?;
        let own = peer.uid() == geteuid().as_raw() && peer.pid() == Some(holder.pid());
        // Asked after the connection: the pid was its own then.
        match own && holder.is_alive() {
            true => Ok(Self(BufReader::new(stream))),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    /// The next message, or nothing when the other end is closed.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] for what is none, and what the system says.
    pub(crate) async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        let mut bounded = AsyncReadExt::take(&mut self.0, MESSAGE_BYTES_MAX);
        bounded.read_until(b'\n', &mut line).await?;
        match line.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The same, within the limit of a hand-over, and never nothing.
    ///
    /// # Errors
    ///
    /// As [`Link::receive`], [`io::ErrorKind::UnexpectedEof`] and [`io::ErrorKind::TimedOut`].
    pub(crate) async fn expect<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let received = timeout(HAND_OVER_LIMIT, self.receive()).await;
        let received = received.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        received.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Sends a message; the other end's buffer has room for all that there are.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line).await
    }

    /// Says nothing more: as the other end sees it, this one is closed.
    pub(crate) async fn hang_up(&mut self) {
        // One that is closed already has heard it.
        let _ = self.0.get_mut().shutdown().await;
    }

    /// Waits until the other end is closed.
    pub(crate) async fn closed(&mut self) {
        // Whatever else comes is no word of this conversation.
        let _ = self.receive::<FilesTaken>().await;
    }
}

/// Has the holder of the machine in `directory` end it, and waits until both are gone: what becomes of
/// a machine whose taker leaves before it has its files.
///
/// # Errors
///
/// As [`Link::connect`]; and where somebody else was faster, or the holder does not end in time.
pub(crate) fn refuse(directory: &Path, holder: &ProcessIdentity) -> io::Result<()> {
    let socket = SocketPath::new(&directory.join(SOCKET))?;
    let mut stream = StdUnixStream::connect(socket.as_path())?;
    let peer = socket_peercred(&stream)?;
    if peer.uid != geteuid() || peer.pid.as_raw_nonzero().get() != holder.pid() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.set_read_timeout(Some(REFUSED_LIMIT))?;
    stream.shutdown(Shutdown::Write)?;
    io::copy(
        &mut Read::take(&mut stream, MESSAGE_BYTES_MAX),
        &mut io::sink(),
    )
    .map(drop)
}

/// Where a holder listens until the first taker comes.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
    /// Tells when something of the directory is removed.
    watch: WatchedFd,
}

impl Door {
    /// Listens in `directory`, which is closed to others.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let removals = inotify::WatchFlags::DELETE | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(&watch, directory, removals)?;
        let path = directory.join(SOCKET);
        let listener = UnixListener::bind(SocketPath::new(&path)?.as_path())?;
        Ok(Self {
            listener,
            path,
            watch: WatchedFd::new(watch)?,
        })
    }

    /// Waits until nobody can find it any more: whoever removed the state root has removed its socket.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) async fn removed(&self) -> io::Result<()> {
        let mut events = [0; EVENT_BYTES];
        while self.path.exists() {
            let mut ready = self.watch.readable().await?;
            // That there are some is enough.
            match rustix::io::read(ready.get_inner(), &mut events) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                read => read.map(drop)?,
            }
        }
        Ok(())
    }

    /// Waits for the first taker. May be dropped at any point without losing one.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) async fn taker(&self) -> io::Result<Link> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            if stream.peer_cred()?.uid() == geteuid().as_raw() {
                return Ok(Link(BufReader::new(stream)));
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> ProcessIdentity {
        ProcessIdentity::current().unwrap()
    }

    #[tokio::test]
    async fn the_first_taker_gets_it_and_the_second_one_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let door = Door::open(directory.path()).unwrap();
        let own = here();
        let mut first = Link::connect(directory.path(), &own).await.unwrap();
        let mut second = Link::connect(directory.path(), &own).await.unwrap();
        let mut holder = door.taker().await.unwrap();
        drop(door);
        holder.send(&FilesTaken).await.unwrap();
        let FilesTaken = first.expect().await.unwrap();
        assert!(second.expect::<FilesTaken>().await.is_err());
        assert!(Link::connect(directory.path(), &own).await.is_err());
        drop(holder);
        assert!(first.receive::<FilesTaken>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_socket_that_is_removed_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let door = Door::open(directory.path()).unwrap();
        let other = directory.path().join("other");
        std::fs::write(&other, "").unwrap();
        let removed = door.removed();
        tokio::pin!(removed);
        std::fs::remove_file(&other).unwrap();
        let moment = Duration::from_millis(50);
        assert!(timeout(moment, &mut removed).await.is_err());
        std::fs::remove_file(&door.path).unwrap();
        removed.await.unwrap();
    }

    #[tokio::test]
    async fn another_holder_than_the_state_says_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _door = Door::open(directory.path()).unwrap();
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let other = ProcessIdentity::of(child.id().try_into().unwrap()).unwrap();
        let refused = Link::connect(directory.path(), &other).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn what_has_no_end_is_no_message() {
        let (one, other) = UnixStream::pair().unwrap();
        let mut link = Link(BufReader::new(one));
        let mut other = other;
        let sent = tokio::spawn(async move {
            let long = vec![b'x'; 2 * MESSAGE_BYTES_MAX as usize];
            let _ = other.write_all(&long).await;
        });
        let error = link.receive::<FilesTaken>().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(link);
        sent.await.unwrap();
    }
}
