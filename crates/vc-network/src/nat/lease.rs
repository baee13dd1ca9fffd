use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::config::NatConfig;
use super::state::Record;

/// What an owner was given.
///
/// It is no guard: it is the owner's until [`Nat::release`](super::Nat::release). Its published
/// ports are held while this is alive, so that no program of the host can bind them.
#[derive(Debug)]
pub struct Lease {
    namespace: PathBuf,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
    dropped_by: Vec<String>,
    #[expect(dead_code, reason = "held, not read")]
    ports: Vec<OwnedFd>,
}

impl Lease {
    pub(super) fn of(
        record: &Record,
        config: &NatConfig,
        dropped_by: Vec<String>,
        ports: Vec<OwnedFd>,
    ) -> Self {
        Self {
            namespace: record.namespace.path().to_owned(),
            address: record.address,
            gateway: config.gateway(),
            dropped_by,
            ports,
        }
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
