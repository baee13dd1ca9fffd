use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::state::{Record, State};

/// What an owner was given.
///
/// It is no guard: it is the owner's until [`Nat::release`](super::Nat::release). Its published
/// ports are held while this is alive, so that no program of the host can bind them.
#[derive(Debug)]
pub struct Lease {
    namespace: PathBuf,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
    ipv6: Option<Ipv6Addr>,
    dropped_by: Vec<String>,
    #[expect(dead_code, reason = "held, not read")]
    ports: Vec<OwnedFd>,
}

impl Lease {
    pub(super) fn of(record: &Record, state: &State, ports: Vec<OwnedFd>) -> Self {
        Self {
            namespace: record.namespace.path().to_owned(),
            address: record.address,
            gateway: state.config.gateway(),
            ipv6: state.address6(record.address),
            dropped_by: Vec::new(),
            ports,
        }
    }

    /// The same, with the tables that drop what is forwarded for it.
    pub(super) fn dropped_by_others(self, dropped_by: Vec<String>) -> Self {
        Self { dropped_by, ..self }
    }

    /// Where its network namespace is, in which the link `eth0` has the address and the default
    /// route. The namespace is deleted with the lease.
    pub fn namespace(&self) -> &Path {
        &self.namespace
    }

    /// The machine's address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The machine's address of IPv6; `None` where the host had no IPv6, or no default route of it,
    /// when the first of the leases was made.
    pub fn address_ipv6(&self) -> Option<Ipv6Addr> {
        self.ipv6
    }

    /// The host's address on the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Tables of nftables, as `FAMILY NAME`, by which somebody else drops what is forwarded for the
    /// machine, unless a rule of theirs lets it through. docker has such a one: the machine reaches
    /// the world after `iptables -I DOCKER-USER -i BRIDGE -j ACCEPT`, and the same with `-o`.
    pub fn dropped_by(&self) -> &[String] {
        &self.dropped_by
    }
}
