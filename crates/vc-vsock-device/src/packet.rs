//! The header of a vsock packet, as a value. Nothing here touches guest memory: a header is
//! copied out of it once, so that what was checked is what is used.

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 44;

/// The host's context id.
pub(crate) const HOST_CID: u64 = 2;

/// The socket type `SOCK_STREAM`, the only one that the device offers.
pub(crate) const TYPE_STREAM: u16 = 1;

/// SHUTDOWN: the sender will receive no more.
pub(crate) const SHUTDOWN_RECEIVE: u32 = 1;

/// SHUTDOWN: the sender will send no more.
pub(crate) const SHUTDOWN_SEND: u32 = 2;

/// SHUTDOWN: both.
pub(crate) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// What a packet asks for or tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Asks for a connection.
    Request,
    /// Accepts one.
    Response,
    /// Refuses or ends one at once.
    Reset,
    /// Ends one or both directions.
    Shutdown,
    /// Carries data.
    Data,
    /// Tells how much may be sent.
    CreditUpdate,
    /// Asks for a credit update.
    CreditRequest,
}

impl Op {
    fn from_wire(value: u16) -> Option<Self> {
        Some(match value {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }

    fn to_wire(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }
}

/// The two ports that name a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ports {
    /// The host's.
    pub(crate) host: u32,
    /// The guest's.
    pub(crate) guest: u32,
}

/// A packet's header. Field names are the standard's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Sender's context id.
    pub(crate) src_cid: u64,
    /// Receiver's context id.
    pub(crate) dst_cid: u64,
    /// Sender's port.
    pub(crate) src_port: u32,
    /// Receiver's port.
    pub(crate) dst_port: u32,
    /// Bytes of data that follow.
    pub(crate) len: u32,
    /// Socket type.
    pub(crate) kind: u16,
    /// Operation, `None` for a number that is not known.
    pub(crate) op: Option<Op>,
    /// Flags of SHUTDOWN.
    pub(crate) flags: u32,
    /// The sender's receive window.
    pub(crate) buf_alloc: u32,
    /// Bytes that the sender has taken out of that window since the connection began.
    pub(crate) fwd_cnt: u32,
}

impl Header {
    /// A packet of the host to the guest, without data and without credit.
    pub(crate) fn to_guest(guest_cid: u64, ports: Ports, op: Op) -> Self {
        Self {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: ports.host,
            dst_port: ports.guest,
            len: 0,
            kind: TYPE_STREAM,
            op: Some(op),
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }

    /// The connection that a packet of the guest belongs to.
    pub(crate) fn ports_from_guest(&self) -> Ports {
        Ports {
            host: self.dst_port,
            guest: self.src_port,
        }
    }

    /// Reads a header.
    pub(crate) fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Self {
        Self {
            src_cid: u64::from_le_bytes(field(bytes, 0)),
            dst_cid: u64::from_le_bytes(field(bytes, 8)),
            src_port: u32::from_le_bytes(field(bytes, 16)),
            dst_port: u32::from_le_bytes(field(bytes, 20)),
            len: u32::from_le_bytes(field(bytes, 24)),
            kind: u16::from_le_bytes(field(bytes, 28)),
            op: Op::from_wire(u16::from_le_bytes(field(bytes, 30))),
            flags: u32::from_le_bytes(field(bytes, 32)),
            buf_alloc: u32::from_le_bytes(field(bytes, 36)),
            fwd_cnt: u32::from_le_bytes(field(bytes, 40)),
        }
    }

    /// Writes a header. An unknown operation becomes 0, which the standard calls invalid.
    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, value: &[u8]| {
            bytes[at..at + value.len()].copy_from_slice(value);
        };
        put(0, &self.src_cid.to_le_bytes());
        put(8, &self.dst_cid.to_le_bytes());
        put(16, &self.src_port.to_le_bytes());
        put(20, &self.dst_port.to_le_bytes());
        put(24, &self.len.to_le_bytes());
        put(28, &self.kind.to_le_bytes());
        put(30, &self.op.map_or(0, Op::to_wire).to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(36, &self.buf_alloc.to_le_bytes());
        put(40, &self.fwd_cnt.to_le_bytes());
        bytes
    }
}

fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_has_the_layout_of_the_standard() {
        let mut header = Header::to_guest(
            3,
            Ports {
                host: 0x11,
                guest: 0x2233,
            },
            Op::Request,
        );
        header.buf_alloc = 0x40000;
        let bytes = header.to_bytes();
        assert_eq!(
            bytes[..16],
            [2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(bytes[16..28], [0x11, 0, 0, 0, 0x33, 0x22, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            bytes[28..44],
            [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_known_ones_survive(bytes: [u8; 32], tail: [u8; 12]) {
            let mut all = [0; HEADER_BYTES];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&tail);
            let header = Header::from_bytes(&all);
            if header.op.is_some() {
                prop_assert_eq!(header.to_bytes(), all);
            }
        }
    }
}
