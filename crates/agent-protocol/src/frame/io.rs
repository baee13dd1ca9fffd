//! Frames over an asynchronous connection.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{Decoder, Frame, encode};

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from the beginning of a connection.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            decoder: Decoder::new(),
        }
    }

    /// The next frame; `None` at the end of the connection. Nothing is lost when the future is
    /// dropped before it is done.
    ///
    /// # Errors
    ///
    /// Those of the connection, and `InvalidData` for what is no frame.
    pub async fn next(&mut self) -> io::Result<Option<Frame<'_>>> {
        while !self.decoder.is_ready().map_err(invalid)? {
            let bytes = self.reader.read(self.decoder.space()).await?;
            if bytes == 0 {
                self.decoder.finish().map_err(invalid)?;
                return Ok(None);
            }
            self.decoder.filled(bytes);
        }
        self.decoder.next_frame().map_err(invalid)
    }
}

/// Sends one frame.
///
/// # Errors
///
/// Those of the connection, and `InvalidData` for a payload that its kind does not allow.
pub async fn send<W: AsyncWrite + Unpin>(writer: &mut W, frame: &Frame<'_>) -> io::Result<()> {
    let mut bytes = Vec::new();
    encode(frame, &mut bytes).map_err(invalid)?;
    writer.write_all(&bytes).await
}

fn invalid(error: crate::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
