//! The framing of the standard streams: one connection a stream, bounded frames, and an end that
//! is said and acknowledged rather than guessed from the close of a connection.
//!
//! ```text
//! byte 0      kind
//! bytes 1-3   zero
//! bytes 4-7   length of the payload, little-endian
//! bytes 8-    payload
//! ```
//!
//! The host dials and sends [`Frame::Hello`], which names the stream; the agent answers
//! [`Frame::HelloOk`]. Whoever has the data (the host for stdin, the agent for the other two) then
//! sends [`Frame::Data`] and at last [`Frame::End`], and closes once [`Frame::EndAck`] has come.
//! Whoever reads may send [`Frame::Error`] at any time: nobody reads any more, and the sender gives
//! up its end of the pipe, so that a process that still writes gets EPIPE.
//!
//! Nothing here does I/O but [`FrameReader`] and [`send`], which are asynchronous. A reader fills
//! [`Decoder::space`] with what its transport gives:
//!
//! ```
//! use agent_protocol::frame::{Decoder, Frame, Stream, encode};
//!
//! let mut wire = Vec::new();
//! encode(&Frame::Data(b"hello"), &mut wire)?;
//! encode(&Frame::End, &mut wire)?;
//!
//! let mut decoder = Decoder::new();
//! decoder.space()[..wire.len()].copy_from_slice(&wire);
//! decoder.filled(wire.len());
//! assert_eq!(decoder.next_frame()?, Some(Frame::Data(b"hello")));
//! assert_eq!(decoder.next_frame()?, Some(Frame::End));
//! assert_eq!(decoder.next_frame()?, None);
//! # Ok::<(), agent_protocol::Error>(())
//! ```

mod decoder;
mod header;
mod hello;
mod io;

pub use decoder::Decoder;
pub use header::{HEADER_BYTES, Header, Kind};
pub use hello::{Hello, Stream};
pub use io::{FrameReader, send};

use crate::{Result, text_prefix};

/// Bytes of one frame's payload.
pub const PAYLOAD_BYTES_MAX: usize = vc_types::limits::STREAM_FRAME_BYTES_MAX;

/// Bytes of a HELLO: two ids and the words around them.
pub const HELLO_BYTES_MAX: usize = 1024;

/// Bytes of an ERROR's text.
pub const ERROR_BYTES_MAX: usize = vc_types::limits::GUEST_TEXT_BYTES_MAX;

/// One frame, its payload borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The first frame of a connection: which stream this is.
    Hello(Hello),
    /// The stream is attached.
    HelloOk,
    /// Bytes of the stream, at least one.
    Data(&'a [u8]),
    /// All bytes were sent.
    End,
    /// The end was seen, and everything before it was taken.
    EndAck,
    /// The stream is refused, or its reader is gone.
    Error(&'a str),
}

/// Appends `frame` to `out`.
///
/// An error's text is cut to what is allowed. To send data without a copy, write
/// [`Header::data`] and then the bytes.
///
/// # Errors
///
/// When the payload is longer or shorter than its kind allows.
pub fn encode(frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<()> {
    let hello;
    let (kind, payload): (Kind, &[u8]) = match frame {
        Frame::Hello(value) => {
            hello = value.to_json()?;
            (Kind::Hello, &hello)
        }
        Frame::HelloOk => (Kind::HelloOk, &[]),
        Frame::Data(bytes) => (Kind::Data, bytes),
        Frame::End => (Kind::End, &[]),
        Frame::EndAck => (Kind::EndAck, &[]),
        Frame::Error(text) => (Kind::Error, text_prefix(text, ERROR_BYTES_MAX).as_bytes()),
    };
    let header = Header::new(kind, payload.len())?;
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

#[cfg(test)]
mod tests;
