//! From a process to the host: stdout, stderr, or a terminal's output.

use std::io;
use std::sync::Arc;

use agent_protocol::frame::{Frame, FrameReader, HEADER_BYTES, Header, send};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::process::{Pipe, read_pipe};

/// Bytes of a frame with its header: what the guest's kernel sends as one packet (Linux's
/// `VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`). One byte more would be a packet of its own.
const FRAME_BYTES: usize = 64 << 10;

/// How a stream of output ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The host has everything and said so.
    Delivered,
    /// The host does not read any more.
    Abandoned,
}

/// Carries everything that comes out of `pipe`, and its end. The pipe is dropped as soon as nobody
/// reads any more, so that the process learns it.
pub(super) async fn carry<R, W>(
    mut reader: FrameReader<R>,
    mut writer: W,
    pipe: Arc<Pipe>,
) -> io::Result<End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // The header's place is kept before the data, so that each frame is one write.
    let mut buffer = vec![0; FRAME_BYTES];
    loop {
        let bytes = tokio::select! {
            biased;
            abandoned = abandoned(&mut reader) => return abandoned,
            bytes = read_pipe(&pipe, &mut buffer[HEADER_BYTES..]) => bytes?,
        };
        if bytes == 0 {
            break;
        }
        let frame = &mut buffer[..HEADER_BYTES + bytes];
        let header = Header::data(&frame[HEADER_BYTES..]).map_err(io::Error::other)?;
        frame[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        tokio::select! {
            biased;
            abandoned = abandoned(&mut reader) => return abandoned,
            written = writer.write_all(frame) => written?,
        }
    }
    drop((pipe, buffer));
    send(&mut writer, &Frame::End).await?;
    // A reader may be as slow as it likes; the wait ends with the connection at the latest.
    match reader.next().await? {
        Some(Frame::EndAck) => Ok(End::Delivered),
        _ => Ok(End::Abandoned),
    }
}

/// Returns when the host says or shows that nobody reads.
async fn abandoned<R: AsyncRead + Unpin>(reader: &mut FrameReader<R>) -> io::Result<End> {
    match reader.next().await {
        Ok(Some(Frame::Error(_)) | None) | Err(_) => Ok(End::Abandoned),
        Ok(Some(_)) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "unexpected frame",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::pipe::pipe;
    use tokio::net::UnixStream;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::process::pipe_of;

    /// A carrier between a pipe, whose writing end is returned, and a connection to the host.
    fn carrier() -> (OwnedFd, UnixStream, JoinHandle<io::Result<End>>) {
        let (reading, writing) = pipe().unwrap();
        let (host, guest) = UnixStream::pair().unwrap();
        let (reader, writer) = guest.into_split();
        let pipe = Arc::new(pipe_of(reading).unwrap());
        (
            writing,
            host,
            tokio::spawn(carry(FrameReader::new(reader), writer, pipe)),
        )
    }

    #[tokio::test]
    async fn everything_comes_and_then_the_end() {
        let (writing, host, carrying) = carrier();
        let sent: Vec<u8> = (0..1_000_000u32).map(|number| number as u8).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || {
            std::io::Write::write_all(&mut std::fs::File::from(writing), &sent).unwrap();
        });
        let (reader, mut writer_half) = host.into_split();
        let mut reader = FrameReader::new(reader);
        let mut received = Vec::new();
        loop {
            match reader.next().await.unwrap() {
                Some(Frame::Data(bytes)) => received.extend_from_slice(bytes),
                Some(Frame::End) => break,
                other => panic!("{other:?}"),
            }
        }
        writer.join().unwrap();
        assert!(received == expected);
        assert!(!carrying.is_finished());
        send(&mut writer_half, &Frame::EndAck).await.unwrap();
        assert_eq!(carrying.await.unwrap().unwrap(), End::Delivered);
    }

    #[tokio::test]
    async fn a_host_that_does_not_read_any_more_breaks_the_pipe() {
        let (writing, host, carrying) = carrier();
        let (_reader, mut writer) = host.into_split();
        send(&mut writer, &Frame::Error("closed")).await.unwrap();
        assert_eq!(carrying.await.unwrap().unwrap(), End::Abandoned);
        let error = rustix::io::write(&writing, b"x").unwrap_err();
        assert_eq!(error, rustix::io::Errno::PIPE);
    }

    #[tokio::test]
    async fn a_lost_connection_breaks_the_pipe_too() {
        let (writing, host, carrying) = carrier();
        drop(host);
        assert_eq!(carrying.await.unwrap().unwrap(), End::Abandoned);
        assert_eq!(
            rustix::io::write(&writing, b"x").unwrap_err(),
            rustix::io::Errno::PIPE
        );
    }
}
