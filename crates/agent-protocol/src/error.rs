//! What can be wrong with what the other side sent, or with what cannot be sent to it.

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A frame or a specification that is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The first byte of a frame names no kind that we know.
    #[error("stream frame of unknown kind {kind}")]
    UnknownFrame {
        /// The byte that was there.
        kind: u8,
    },

    /// The three reserved bytes of a frame are not zero.
    #[error("stream frame with reserved bytes in use")]
    ReservedBytes,

    /// A frame's length is not one that its kind may have.
    #[error("stream frame {kind} with {bytes} bytes, {min} to {max} are allowed")]
    FrameLength {
        /// The kind of the frame.
        kind: crate::frame::Kind,
        /// The length that its header names.
        bytes: usize,
        /// The least that this kind has.
        min: usize,
        /// The most that this kind may have.
        max: usize,
    },

    /// The payload of a HELLO frame is not what it has to be.
    #[error("cannot read the hello of a stream")]
    Hello(#[source] serde_json::Error),

    /// The payload of an ERROR frame is not text.
    #[error("cannot read the error text of a stream")]
    Text(#[source] std::str::Utf8Error),

    /// The connection ended in the middle of a frame.
    #[error("stream ended inside a frame, after {bytes} bytes of it")]
    Truncated {
        /// What was there of the frame.
        bytes: usize,
    },

    /// A value of the specification has no place in the message, or is unknown in it.
    #[error("cannot carry {field} = {value:?} of the container's specification")]
    Specification {
        /// The field, as the specification names it.
        field: &'static str,
        /// Its value.
        value: String,
    },
}
