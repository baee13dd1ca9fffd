//! The eight bytes before each payload.

use std::fmt;

use super::{ERROR_BYTES_MAX, HELLO_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::{Error, Result};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 8;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Names the stream, as JSON.
    Hello = 0,
    /// The stream is attached.
    HelloOk = 1,
    /// Bytes of the stream.
    Data = 2,
    /// All bytes were sent.
    End = 3,
    /// The end was seen.
    EndAck = 4,
    /// The stream is refused, or its reader is gone.
    Error = 5,
}

impl Kind {
    /// The least and the most bytes that a payload of this kind has. Empty data would be a frame
    /// that a peer can send for ever without any progress.
    fn payload_bytes(self) -> (usize, usize) {
        match self {
            Kind::Hello => (2, HELLO_BYTES_MAX),
            Kind::HelloOk | Kind::End | Kind::EndAck => (0, 0),
            Kind::Data => (1, PAYLOAD_BYTES_MAX),
            Kind::Error => (0, ERROR_BYTES_MAX),
        }
    }
}

impl TryFrom<u8> for Kind {
    type Error = Error;

    fn try_from(byte: u8) -> Result<Self> {
        Ok(match byte {
            0 => Kind::Hello,
            1 => Kind::HelloOk,
            2 => Kind::Data,
            3 => Kind::End,
            4 => Kind::EndAck,
            5 => Kind::Error,
            kind => return Err(Error::UnknownFrame { kind }),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Hello => "HELLO",
            Kind::HelloOk => "HELLO_OK",
            Kind::Data => "DATA",
            Kind::End => "END",
            Kind::EndAck => "END_ACK",
            Kind::Error => "ERROR",
        })
    }
}

/// A header whose length was checked against its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    kind: Kind,
    payload_bytes: u32,
}

impl Header {
    /// A header for a payload of `payload_bytes`.
    ///
    /// # Errors
    ///
    /// [`Error::FrameLength`] when a payload of this kind cannot have that length.
    pub fn new(kind: Kind, payload_bytes: usize) -> Result<Self> {
        let (min, max) = kind.payload_bytes();
        match u32::try_from(payload_bytes) {
            Ok(bytes) if (min..=max).contains(&payload_bytes) => Ok(Self {
                kind,
                payload_bytes: bytes,
            }),
            _ => Err(Error::FrameLength {
                kind,
                bytes: payload_bytes,
                min,
                max,
            }),
        }
    }

    /// The header of a DATA frame with this payload, to be written before it.
    ///
    /// # Errors
    ///
    /// As [`Header::new`]: there is none for no bytes, nor for more than
    /// [`PAYLOAD_BYTES_MAX`](super::PAYLOAD_BYTES_MAX).
    pub fn data(payload: &[u8]) -> Result<Self> {
        Self::new(Kind::Data, payload.len())
    }

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// When the kind is unknown, a reserved byte is set, or the length is not one of its kind.
    pub fn from_bytes(bytes: [u8; HEADER_BYTES]) -> Result<Self> {
        let [kind, r1, r2, r3, l0, l1, l2, l3] = bytes;
        let kind = Kind::try_from(kind)?;
        if [r1, r2, r3] != [0; 3] {
            return Err(Error::ReservedBytes);
        }
        Self::new(kind, u32::from_le_bytes([l0, l1, l2, l3]) as usize)
    }

    /// The header as it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [l0, l1, l2, l3] = self.payload_bytes.to_le_bytes();
        [self.kind as u8, 0, 0, 0, l0, l1, l2, l3]
    }

    /// What the frame is.
    #[must_use]
    pub fn kind(self) -> Kind {
        self.kind
    }

    /// How many bytes follow.
    #[must_use]
    pub fn payload_bytes(self) -> usize {
        self.payload_bytes as usize
    }
}
