use crate::frame::PAYLOAD_BYTES_MAX;

/// Bytes before the message: a number and the transport.
const HEADER_BYTES: usize = 5;

/// Bytes of one message of DNS that are relayed.
pub const DNS_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - HEADER_BYTES;

/// How a query came, and its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As a datagram.
    Udp,
    /// Over a connection.
    Tcp,
}

/// A query or its answer, as the payload of a frame.
///
/// ```
/// use agent_protocol::relay::{Message, Transport};
///
/// let query = Message { number: 7, transport: Transport::Udp, bytes: b"..." };
/// assert_eq!(Message::parse(&query.to_bytes()), Some(query));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// By which an answer finds its query.
    pub number: u32,
    /// How the query came.
    pub transport: Transport,
    /// What RFC 1035 calls a message, [`DNS_BYTES_MAX`] at most.
    pub bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// The payload.
    pub fn to_bytes(self) -> Vec<u8> {
        let transport = match self.transport {
            Transport::Udp => 0,
            Transport::Tcp => 1,
        };
        [&self.number.to_le_bytes()[..], &[transport], self.bytes].concat()
    }

    /// Reads a payload; `None` for what is none.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let (number, rest) = payload.split_first_chunk()?;
        let (transport, bytes) = rest.split_first()?;
        Some(Self {
            number: u32::from_le_bytes(*number),
            transport: match transport {
                0 => Transport::Udp,
                1 => Transport::Tcp,
                _ => return None,
            },
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_is_none() {
        assert_eq!(Message::parse(&[1, 0, 0, 0]), None);
        assert_eq!(Message::parse(&[1, 0, 0, 0, 2, 9]), None);
        let message = Message::parse(&[1, 2, 0, 0, 1]).unwrap();
        assert_eq!((message.number, message.transport), (513, Transport::Tcp));
        let largest = Message {
            bytes: &[7; DNS_BYTES_MAX],
            ..message
        };
        assert_eq!(largest.to_bytes().len(), PAYLOAD_BYTES_MAX);
    }
}
