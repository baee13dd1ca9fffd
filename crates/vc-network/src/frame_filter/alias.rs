use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::frame::{Frame, Payload};
use crate::address::Cidr;

/// The port of resolvers, RFC 1035.
const DNS: u16 = 53;

/// A network that only the process knows, and whose addresses it takes for its host's loopback.
///
/// A guest does not connect there, but to the resolver. It may answer those of the host that have
/// written to it, which seem to come from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AliasNetwork {
    /// Its addresses.
    pub network: Cidr,
    /// Which of them stands for the resolver of the host.
    pub resolver: IpAddr,
}

impl AliasNetwork {
    /// Whether a guest's packet may go there.
    pub(super) fn may_pass(&self, destination: IpAddr, payload: Payload, heard: &Heard) -> bool {
        let resolver = |port| destination == self.resolver && port == DNS;
        match payload {
            Payload::Icmp => true,
            Payload::Tcp { port, opens } => !opens || resolver(port),
            Payload::Udp { port, .. } => resolver(port) || heard.has(port),
            Payload::Other => false,
        }
    }
}

/// The ports from which somebody of the host has sent datagrams to the guest.
#[derive(Debug)]
pub(super) struct Heard([AtomicU64; 1024]);

impl Default for Heard {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; 1024])
    }
}

impl Heard {
    pub(super) fn note(&self, frame: &[u8], aliases: &[AliasNetwork]) {
        if let Some(Frame::Packet {
            source,
            payload: Payload::Udp { source_port, .. },
            ..
        }) = Frame::parse(frame)
            && aliases.iter().any(|alias| alias.network.contains(source))
        {
            let (word, bit) = Self::place(source_port);
            self.0[word].fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn has(&self, port: u16) -> bool {
        let (word, bit) = Self::place(port);
        self.0[word].load(Ordering::Relaxed) & bit != 0
    }

    fn place(port: u16) -> (usize, u64) {
        (usize::from(port / 64), 1 << (port % 64))
    }
}
