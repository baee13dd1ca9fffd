use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, VsockAddr, connect, recv, socket,
};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;
use vc_types::{AgentAddress, SocketPath};

use crate::error::{Error, Result};

/// Bytes of the answer to `CONNECT`: `OK`, a space, at most ten digits and the line's end.
const ANSWER_BYTES_MAX: usize = 16;

/// The way to the ports of one guest.
#[derive(Clone, Debug)]
pub struct Transport {
    address: AgentAddress,
    limit: Duration,
}

impl Transport {
    /// The way to the guest at `address`; one connect may take `limit`.
    pub fn new(address: AgentAddress, limit: Duration) -> Self {
        Self { address, limit }
    }

    /// Connects to `port` of the guest.
    ///
    /// The stream is a socket of whatever family carries it; read and write are all it is for.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] when the device process is gone, [`Error::Refused`] when nothing listens
    /// in the guest, [`Error::TimedOut`] after the limit.
    pub async fn connect(&self, port: u32) -> Result<UnixStream> {
        timeout(self.limit, self.dial(port))
            .await
            .map_err(|_| Error::TimedOut {
                call: "connect to the agent",
                limit: "agent_connect_ms",
                after: self.limit,
            })?
    }

    /// Connects, for however long that takes.
    pub(crate) async fn dial(&self, port: u32) -> Result<UnixStream> {
        match &self.address {
            AgentAddress::HybridVsock { socket } => connect_hybrid(socket, port).await,
            AgentAddress::Vsock { cid } => connect_vsock(*cid, port).await,
            other => Err(Error::Connect {
                port,
                source: io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("no way to an agent at {other:?}"),
                ),
            }),
        }
    }
}

async fn connect_hybrid(socket: &Path, port: u32) -> Result<UnixStream> {
    let failed = |source| Error::Connect { port, source };
    let path = SocketPath::new(socket).map_err(failed)?;
    let mut stream = UnixStream::connect(path.as_path()).await.map_err(failed)?;
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await
        .map_err(failed)?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let mut length = 0;
    while !answer[..length].ends_with(b"\n") {
        if length == ANSWER_BYTES_MAX {
            return Err(failed(io::ErrorKind::InvalidData.into()));
        }
        match read_of_line(&stream, &mut answer[length..]).await {
            Ok(0) => return Err(Error::Refused { port }),
            Ok(read) => length += read,
            Err(error) => return Err(failed(error)),
        }
    }
    if answer.starts_with(b"OK ") {
        Ok(stream)
    } else {
        Err(Error::Refused { port })
    }
}

/// Reads what is there of a line, and nothing that follows it: that belongs to the guest.
async fn read_of_line(stream: &UnixStream, line: &mut [u8]) -> io::Result<usize> {
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let received = stream.async_io(Interest::READABLE, || {
        let there = recv(stream.as_raw_fd(), line, peek)?;
        let end = line[..there].iter().position(|byte| *byte == b'\n');
        let read = end.map_or(there, |end| end + 1);
        Ok(recv(
            stream.as_raw_fd(),
            &mut line[..read],
            MsgFlags::MSG_DONTWAIT,
        )?)
    });
    received.await
}

async fn connect_vsock(cid: u32, port: u32) -> Result<UnixStream> {
    let failed = |source: io::Error| Error::Connect { port, source };
    // A connect may wait for the guest, so it runs on a thread of its own.
    let socket = tokio::task::spawn_blocking(move || -> io::Result<OwnedFd> {
        let fd = socket(
            AddressFamily::Vsock,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        connect(fd.as_raw_fd(), &VsockAddr::new(cid, port))?;
        Ok(fd)
    })
    .await
    .map_err(|error| failed(io::Error::other(error)))?
    .map_err(failed)?;
    // Only read and write are used, which are the same for every family.
    let stream = StdUnixStream::from(socket);
    stream.set_nonblocking(true).map_err(failed)?;
    UnixStream::from_std(stream).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// A device process that answers the first connect with `answer`.
    fn device(answer: &'static [u8]) -> (tempfile::TempDir, Transport) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("v");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = [0; 13];
            stream.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"CONNECT 1024\n");
            stream.write_all(answer).unwrap();
        });
        let address = AgentAddress::HybridVsock { socket };
        (dir, Transport::new(address, Duration::from_secs(5)))
    }

    #[tokio::test]
    async fn what_follows_the_answer_is_not_eaten() {
        let (_dir, transport) = device(b"OK 7\nrest");
        let mut stream = transport.connect(1024).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "rest");
    }

    #[tokio::test]
    async fn a_closed_connection_is_a_refusal() {
        let (_dir, transport) = device(b"");
        assert!(matches!(
            transport.connect(1024).await,
            Err(Error::Refused { port: 1024 })
        ));
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut() {
        let (_dir, transport) = device(b"OK 11111111111111111111111111111111\n");
        assert!(matches!(
            transport.connect(1024).await,
            Err(Error::Connect { .. })
        ));
    }
}
