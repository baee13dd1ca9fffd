use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use vc_types::SandboxId;

use super::config::NatConfig;
use super::ipv6::{Ipv6, Subnet6};
use super::port::PublishedPort;
use crate::error::{Error, Result, io};
use crate::limits::{NAT_LOCK_LIMIT, NAT_LOCK_RETRY, NAT_STATE_BYTES_MAX};
use crate::namespace::{MadeNamespace, NamespaceId};

const FILE: &str = "leases.json";

/// What is leased, and what was found before the first lease.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// In which network.
    pub(super) host: NamespaceId,
    pub(super) config: NatConfig,
    pub(super) forwarding_was_off: bool,
    #[serde(default)]
    pub(super) ipv6: Ipv6,
    pub(super) leases: BTreeMap<SandboxId, Record>,
}

/// One lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) address: Ipv4Addr,
    pub(super) namespace: MadeNamespace,
    pub(super) ports: Vec<PublishedPort>,
}

impl State {
    /// Whether a network of this configuration is that of these leases. A subnet of IPv6 that nobody
    /// has an address of is none; a state of an older version has none either.
    pub(super) fn is_of(&self, config: &NatConfig) -> bool {
        match self.ipv6 {
            Ipv6::Used { .. } => self.config == *config,
            Ipv6::Left { .. } => self.config.without_ipv6() == config.without_ipv6(),
        }
    }

    /// The subnet of IPv6, where machines have it.
    pub(super) fn subnet6(&self) -> Option<Subnet6> {
        match self.ipv6 {
            Ipv6::Used { .. } => self.config.subnet6,
            Ipv6::Left { .. } => None,
        }
    }

    /// The address of IPv6 that goes with a lease's, where machines have it.
    pub(super) fn address6(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        Some(self.config.beside(self.subnet6()?, address))
    }

    /// Where a published port leads; `None` where machines have no such address.
    pub(super) fn machine(&self, record: &Record, port: &PublishedPort) -> Option<SocketAddr> {
        let address = match port.host_address {
            IpAddr::V4(_) => record.address.into(),
            IpAddr::V6(_) => self.address6(record.address)?.into(),
        };
        Some(SocketAddr::new(address, port.guest_port.get()))
    }

    /// Checks that each of these ports can be, is free, and there once.
    pub(super) fn check_ports(&self, ports: &[PublishedPort]) -> Result<()> {
        for (number, port) in ports.iter().enumerate() {
            if let (IpAddr::V6(_), Ipv6::Left { reason }) = (port.host_address, &self.ipv6) {
                let (port, reason) = (*port, reason.clone());
                return Err(Error::NoIpv6 { port, reason });
            }
            let owner = self.leases.iter().find_map(|(owner, record)| {
                let taken = record.ports.iter().any(|other| other.collides(port));
                taken.then(|| owner.clone())
            });
            if owner.is_some() || ports[..number].iter().any(|other| other.collides(port)) {
                return Err(Error::PortTaken { port: *port, owner });
            }
        }
        Ok(())
    }
}

/// The state, which nobody else changes while this is alive.
#[derive(Debug)]
pub(super) struct Locked {
    /// None while there is no lease.
    pub(super) state: Option<State>,
    directory: PathBuf,
    /// The lock is the directory itself: nothing of it stays.
    lock: File,
}

impl Locked {
    /// Waits for the lock, and reads.
    pub(super) fn take(directory: &Path) -> Result<Self> {
        let lock = File::open(directory).map_err(io("open", directory.display()))?;
        let end = Instant::now() + NAT_LOCK_LIMIT;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => {
                    thread::sleep(NAT_LOCK_RETRY);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    return Err(Error::Locked {
                        path: directory.to_owned(),
                    });
                }
                Err(errno) => return Err(io("lock", directory.display())(errno)),
            }
        }
        let path = directory.join(FILE);
        let state = read(&path).map_err(io("read", path.display()))?;
        Ok(Self {
            state,
            directory: directory.to_owned(),
            lock,
        })
    }

    /// Writes the state, so that a reader sees the old or the new one; none is no file.
    pub(super) fn store(&self) -> Result<()> {
        let path = self.directory.join(FILE);
        self.replace(&path).map_err(io("write", path.display()))
    }

    fn replace(&self, path: &Path) -> io::Result<()> {
        let Some(state) = &self.state else {
            remove(fs::remove_file(path))?;
            return remove(fs::remove_dir(namespaces(&self.directory)));
        };
        // One that a crash has left is overwritten: nobody else has the lock.
        let new = path.with_extension("new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        self.lock.sync_all()
    }

    /// The lease of an owner, with all of the others.
    pub(super) fn lease(&self, owner: &SandboxId) -> Option<(&State, &Record)> {
        let state = self.state.as_ref()?;
        Some((state, state.leases.get(owner)?))
    }
}

/// Where the namespaces of the leases are kept.
pub(super) fn namespaces(directory: &Path) -> PathBuf {
    directory.join("netns")
}

/// Makes a directory that is the owner's alone, where it is missing.
pub(super) fn make_directory(directory: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(io("make the directory", directory.display()))
}

fn read(path: &Path) -> io::Result<Option<State>> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if metadata.len() > NAT_STATE_BYTES_MAX {
        let text = format!("it has more than {NAT_STATE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Some(serde_json::from_slice(&fs::read(path)?)?))
}

fn remove(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::super::port::Protocol;
    use super::*;

    fn port(protocol: Protocol, address: impl Into<IpAddr>, number: u16) -> PublishedPort {
        let number = NonZeroU16::new(number).unwrap();
        PublishedPort {
            protocol,
            host_address: address.into(),
            host_port: number,
            guest_port: number,
        }
    }

    #[test]
    fn ports_collide_where_a_packet_could_be_meant_for_either() {
        use Protocol::{Tcp, Udp};
        let one = port(Tcp, [127, 0, 0, 1], 80);
        for (other, collides) in [
            (one, true),
            (port(Tcp, [0, 0, 0, 0], 80), true),
            (port(Tcp, [127, 0, 0, 2], 80), false),
            (port(Tcp, [127, 0, 0, 1], 81), false),
            (port(Udp, [127, 0, 0, 1], 80), false),
            (port(Tcp, Ipv6Addr::LOCALHOST, 80), false),
            (port(Tcp, Ipv6Addr::UNSPECIFIED, 80), false),
        ] {
            assert_eq!(one.collides(&other), collides, "{other}");
            assert_eq!(other.collides(&one), collides, "{other}");
        }
    }
}
