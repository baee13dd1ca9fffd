//! The standard streams of processes in a played guest.

use std::io;
use std::sync::Arc;

use agent_protocol::frame::{Decoder, Frame, PAYLOAD_BYTES_MAX, Stream, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::super::calls::Call;
use super::guest::Guest;
use super::process::Process;

/// Serves one stream to its end.
pub(super) async fn serve(stream: UnixStream, guest: &Guest) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = Frames::new(reader);
    let hello = match reader.next().await? {
        Some(Frame::Hello(hello)) => hello,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    if let Err(reason) = guest.script().calls().pass(Call::Attach).await {
        return send(&mut writer, &Frame::Error(&reason)).await;
    }
    let process = tokio::select! {
        process = guest.wait_for(&hello.container_id, &hello.exec_id) => process,
        // Whoever waits says nothing; it has given up.
        _ = reader.next() => return Ok(()),
    };
    send(&mut writer, &Frame::HelloOk).await?;
    match hello.stream {
        Stream::Stdin => input(&mut reader, &mut writer, &process).await,
        output => carry(&mut reader, &mut writer, process, output).await,
    }
}

async fn input(
    reader: &mut Frames,
    writer: &mut OwnedWriteHalf,
    process: &Process,
) -> io::Result<()> {
    loop {
        let frame = tokio::select! {
            biased;
            frame = reader.next() => frame?,
            _ = process.ended() => {
                return send(writer, &Frame::Error("the process has ended")).await;
            }
        };
        match frame {
            Some(Frame::Data(bytes)) => {
                // One that ended does not read.
                tokio::select! {
                    () = process.read(bytes) => {}
                    _ = process.ended() => {}
                }
            }
            Some(Frame::End) => {
                process.started().await;
                process.read_all();
                return send(writer, &Frame::EndAck).await;
            }
            _ => {
                process.read_all();
                return Ok(());
            }
        }
    }
}

async fn carry(
    reader: &mut Frames,
    writer: &mut OwnedWriteHalf,
    process: Arc<Process>,
    stream: Stream,
) -> io::Result<()> {
    let written = async {
        process.started().await;
        let program = &process.program;
        let printed = match stream {
            Stream::Stderr => &program.stderr,
            _ => &program.stdout,
        };
        data(writer, printed).await?;
        let echo = match stream {
            Stream::Stdout => process.take_output(),
            _ => None,
        };
        if let Some(mut echo) = echo {
            loop {
                let piece = tokio::select! {
                    biased;
                    piece = echo.recv() => piece,
                    _ = process.ended() => echo.try_recv().ok(),
                };
                match piece {
                    Some(bytes) => data(writer, &bytes).await?,
                    None => break,
                }
            }
        }
        process.ended().await;
        send(writer, &Frame::End).await
    };
    let acknowledged = async {
        // The acknowledgement, or that nobody reads any more.
        reader.next().await.map(|_| ())
    };
    tokio::pin!(acknowledged);
    tokio::select! {
        written = written => written?,
        gone = &mut acknowledged => return gone,
    }
    acknowledged.await
}

async fn data(writer: &mut OwnedWriteHalf, bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(PAYLOAD_BYTES_MAX) {
        send(writer, &Frame::Data(piece)).await?;
    }
    Ok(())
}

async fn send(writer: &mut OwnedWriteHalf, frame: &Frame<'_>) -> io::Result<()> {
    let mut bytes = Vec::new();
    encode(frame, &mut bytes).map_err(io::Error::other)?;
    writer.write_all(&bytes).await
}

/// Frames as they come.
struct Frames {
    reader: OwnedReadHalf,
    decoder: Decoder,
}

impl Frames {
    fn new(reader: OwnedReadHalf) -> Self {
        Self {
            reader,
            decoder: Decoder::new(),
        }
    }

    /// The next frame; none at the end of the connection. Nothing is lost when this is dropped.
    async fn next(&mut self) -> io::Result<Option<Frame<'_>>> {
        while !self.decoder.is_ready().map_err(io::Error::other)? {
            match self.reader.read(self.decoder.space()).await? {
                0 => return Ok(None),
                bytes => self.decoder.filled(bytes),
            }
        }
        self.decoder.next_frame().map_err(io::Error::other)
    }
}
