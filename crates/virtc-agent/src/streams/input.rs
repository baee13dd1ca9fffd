//! From the host to a process: stdin, or a terminal's input.

use std::io;
use std::sync::Arc;

use agent_protocol::frame::{Frame, FrameReader, send};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::process::{Pipe, end_input, write_pipe};

/// What the host is told when the process has closed its input.
const READER_GONE: &str = "the process reads no more input";

/// Carries everything into `pipe`, and the end of it. A connection that is lost before counts as
/// the end: the process must not wait for ever.
pub(super) async fn carry<R, W>(
    mut reader: FrameReader<R>,
    mut writer: W,
    pipe: Arc<Pipe>,
    is_terminal: bool,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut line_begun = false;
    loop {
        match reader.next().await? {
            Some(Frame::Data(bytes)) => {
                line_begun = bytes.last() != Some(&b'\n');
                if write_pipe(&pipe, bytes).await.is_err() {
                    return send(&mut writer, &Frame::Error(READER_GONE)).await;
                }
            }
            Some(Frame::End) => {
                end_input(&pipe, is_terminal, line_begun).await;
                drop(pipe);
                return send(&mut writer, &Frame::EndAck).await;
            }
            Some(Frame::Error(_)) | None => {
                end_input(&pipe, is_terminal, line_begun).await;
                return Ok(());
            }
            Some(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "unexpected frame",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::pipe::pipe;
    use tokio::net::UnixStream;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::process::{pipe_of, read_pipe};

    fn carrier() -> (OwnedFd, UnixStream, JoinHandle<io::Result<()>>) {
        let (reading, writing) = pipe().unwrap();
        let (host, guest) = UnixStream::pair().unwrap();
        let (reader, writer) = guest.into_split();
        let pipe = Arc::new(pipe_of(writing).unwrap());
        (
            reading,
            host,
            tokio::spawn(carry(FrameReader::new(reader), writer, pipe, false)),
        )
    }

    #[tokio::test]
    async fn the_end_comes_after_the_last_byte_and_is_acknowledged() {
        let (reading, host, carrying) = carrier();
        let (reader, mut writer) = host.into_split();
        send(&mut writer, &Frame::Data(b"hello")).await.unwrap();
        send(&mut writer, &Frame::End).await.unwrap();
        assert_eq!(
            FrameReader::new(reader).next().await.unwrap(),
            Some(Frame::EndAck)
        );
        carrying.await.unwrap().unwrap();
        let reading = pipe_of(reading).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(read_pipe(&reading, &mut buffer).await.unwrap(), 5);
        assert_eq!(read_pipe(&reading, &mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_process_that_closed_its_input_is_reported() {
        let (reading, host, carrying) = carrier();
        drop(reading);
        let (reader, mut writer) = host.into_split();
        send(&mut writer, &Frame::Data(b"hello")).await.unwrap();
        assert_eq!(
            FrameReader::new(reader).next().await.unwrap(),
            Some(Frame::Error(READER_GONE))
        );
        carrying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_lost_connection_is_the_end_of_input() {
        let (reading, host, carrying) = carrier();
        drop(host);
        carrying.await.unwrap().unwrap();
        let reading = pipe_of(reading).unwrap();
        assert_eq!(read_pipe(&reading, &mut [0; 1]).await.unwrap(), 0);
    }
}
