//! What a frame is, as far as a filter looks at it: RFC 826, 791, 8200, 9293 and 768.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes before the payload of an Ethernet frame: two addresses and the type.
const HEADER_BYTES: usize = 14;

const IPV6_HEADER_BYTES: usize = 40;

/// In the flags of TCP.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A frame without tags, of what a network of processes knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Arp,
    Packet {
        source: IpAddr,
        destination: IpAddr,
        payload: Payload,
    },
}

/// What is in a packet. Ports are those of the receiver, but where it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Tcp {
        port: u16,
        opens: bool,
    },
    Udp {
        source_port: u16,
        port: u16,
    },
    Icmp,
    /// A fragment, another protocol, or none.
    Other,
}

impl Frame {
    /// `None` for what is no frame of these kinds.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let (header, packet) = frame.split_at_checked(HEADER_BYTES)?;
        match [header[12], header[13]] {
            [0x08, 0x06] => Some(Self::Arp),
            [0x08, 0x00] => ipv4(packet),
            [0x86, 0xdd] => ipv6(packet),
            _ => None,
        }
    }
}

fn ipv4(packet: &[u8]) -> Option<Frame> {
    let first = *packet.first()?;
    let (header, payload) = packet.split_at_checked(usize::from(first & 0xf) * 4)?;
    let address = |at| Some(IpAddr::V4(Ipv4Addr::from(array::<4>(header, at)?)));
    // The lowest bits are the place, and above them is whether more follow.
    let is_fragment = u16::from_be_bytes(array(header, 6)?) & 0x3fff != 0;
    let (source, destination) = (address(12)?, address(16)?);
    (first >> 4 == 4).then_some(Frame::Packet {
        source,
        destination,
        payload: match is_fragment {
            true => Payload::Other,
            false => transport(header[9], payload),
        },
    })
}

fn ipv6(packet: &[u8]) -> Option<Frame> {
    let (header, payload) = packet.split_at_checked(IPV6_HEADER_BYTES)?;
    let address = |at| Some(IpAddr::V6(Ipv6Addr::from(array::<16>(header, at)?)));
    let (source, destination) = (address(8)?, address(24)?);
    (header[0] >> 4 == 6).then_some(Frame::Packet {
        source,
        destination,
        payload: transport(header[6], payload),
    })
}

fn transport(protocol: u8, bytes: &[u8]) -> Payload {
    let port = |at| array(bytes, at).map(u16::from_be_bytes);
    match (protocol, port(0), port(2), bytes.get(13)) {
        (1 | 58, ..) => Payload::Icmp,
        (6, _, Some(port), Some(flags)) => Payload::Tcp {
            port,
            opens: flags & SYN != 0 && flags & ACK == 0,
        },
        (17, Some(source_port), Some(port), _) => Payload::Udp { source_port, port },
        _ => Payload::Other,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn framed(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[2; 12][..], &kind, packet].concat()
    }

    pub(crate) fn ipv4(destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&[10, 0, 2, 15]);
        let destination: Ipv4Addr = destination.parse().unwrap();
        packet[16..20].copy_from_slice(&destination.octets());
        framed([0x08, 0x00], &[&packet, payload].concat())
    }

    pub(crate) fn ipv6(destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[6] = protocol;
        let destination: Ipv6Addr = destination.parse().unwrap();
        packet[24..40].copy_from_slice(&destination.octets());
        framed([0x86, 0xdd], &[&packet, payload].concat())
    }

    pub(crate) fn tcp(port: u16, flags: u8) -> Vec<u8> {
        let mut header = vec![0; 20];
        header[2..4].copy_from_slice(&port.to_be_bytes());
        header[13] = flags;
        header
    }

    pub(crate) fn udp(source: u16, port: u16) -> Vec<u8> {
        let [source, port] = [source, port].map(u16::to_be_bytes);
        [&source[..], &port, &[0, 8, 0, 0]].concat()
    }

    fn payload(frame: &[u8]) -> Payload {
        match Frame::parse(frame) {
            Some(Frame::Packet { payload, .. }) => payload,
            frame => panic!("{frame:?}"),
        }
    }

    #[test]
    fn what_is_asked_for_is_found() {
        let opens = |flags| match payload(&ipv4("10.0.2.2", 6, &tcp(80, flags))) {
            Payload::Tcp { port: 80, opens } => opens,
            payload => panic!("{payload:?}"),
        };
        assert!(opens(SYN) && opens(SYN | 0x08) && !opens(SYN | ACK) && !opens(ACK));
        let expected = Payload::Udp {
            source_port: 7,
            port: 53,
        };
        assert_eq!(payload(&ipv6("fec0::3", 17, &udp(7, 53))), expected);
        assert_eq!(payload(&ipv6("fec0::3", 58, &[])), Payload::Icmp);
        // Options before the payload.
        let mut options = ipv4("10.0.2.2", 17, &[&[1; 4][..], &udp(7, 53)].concat());
        options[14] = 0x46;
        assert_eq!(payload(&options), expected);
    }

    #[test]
    fn a_fragment_has_no_port() {
        for fragment in [[0x20, 0], [0, 1]] {
            let mut frame = ipv4("10.0.2.2", 17, &udp(7, 53));
            frame[20..22].copy_from_slice(&fragment);
            assert_eq!(payload(&frame), Payload::Other);
        }
    }

    #[test]
    fn what_is_cut_or_of_another_kind_is_none() {
        let whole = ipv4("10.0.2.2", 6, &[]);
        for length in 0..whole.len() {
            assert_eq!(Frame::parse(&whole[..length]), None, "{length}");
        }
        for version in [0x65, 0x44, 0x4f] {
            let mut odd = whole.clone();
            odd[14] = version;
            assert_eq!(Frame::parse(&odd), None, "{version:#x}");
        }
        let tagged = framed([0x81, 0x00], &whole);
        assert_eq!(Frame::parse(&tagged), None);
    }
}
