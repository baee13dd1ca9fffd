//! Takes bytes as they come and gives frames.

use super::{Frame, HEADER_BYTES, Header, Hello, Kind};
use crate::{Error, Result};

/// What a new decoder sets aside: enough for everything but large data.
const BUFFER_BYTES_MIN: usize = 4096;

/// Collects the bytes of a connection and cuts them into frames.
///
/// Its buffer grows to one frame and no further, and only after the frame's header was found
/// good.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// An empty decoder.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES_MIN],
            start: 0,
            end: 0,
        }
    }

    /// Where the next bytes go: never empty once [`next_frame`](Self::next_frame) has said `None`.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buffer[self.end..]
    }

    /// The first `bytes` of [`space`](Self::space) are filled now. More than there is counts as
    /// all of it.
    pub fn filled(&mut self, bytes: usize) {
        self.end = self.buffer.len().min(self.end.saturating_add(bytes));
    }

    /// Whether all of the next frame is there.
    ///
    /// # Errors
    ///
    /// As [`next_frame`](Self::next_frame).
    pub fn is_ready(&mut self) -> Result<bool> {
        Ok(self.complete_header()?.is_some())
    }

    /// The next frame, if all of it is there.
    ///
    /// # Errors
    ///
    /// When the bytes are not a frame. The connection is of no use then: where the next frame
    /// begins is not known.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        let Some(header) = self.complete_header()? else {
            return Ok(None);
        };
        let begin = self.start + HEADER_BYTES;
        self.start = begin + header.payload_bytes();
        let payload = &self.buffer[begin..self.start];
        Ok(Some(match header.kind() {
            Kind::Hello => Frame::Hello(Hello::from_json(payload)?),
            Kind::HelloOk => Frame::HelloOk,
            Kind::Data => Frame::Data(payload),
            Kind::End => Frame::End,
            Kind::EndAck => Frame::EndAck,
            Kind::Error => Frame::Error(std::str::from_utf8(payload).map_err(Error::Text)?),
        }))
    }

    /// The header of the next frame if its payload is there too; else room is made for it.
    fn complete_header(&mut self) -> Result<Option<Header>> {
        let Some(header) = self.buffer[self.start..self.end].first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::from_bytes(*header)?;
        let frame_bytes = HEADER_BYTES + header.payload_bytes();
        if self.end - self.start >= frame_bytes {
            return Ok(Some(header));
        }
        if self.buffer.len() < frame_bytes {
            self.buffer.resize(frame_bytes, 0);
        }
        Ok(None)
    }

    /// To be called at the end of the connection.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] when the end came inside a frame.
    pub fn finish(&self) -> Result<()> {
        match self.end - self.start {
            0 => Ok(()),
            bytes => Err(Error::Truncated { bytes }),
        }
    }
}
