//! An address behind the private bridge of the host, which its users share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vc_hypervisor::Capabilities;
use vc_network::{HostNetwork, InterworkingModel, Lease, Nat, NatConfig, PublishedPort};
use vc_store::{Listed, SandboxDir, Store};
use vc_types::limits::ID_BYTES_MAX;
use vc_types::{ProcessIdentity, SandboxId};

use super::config::EndpointConfig;
use super::plan::NetworkPlan;
use super::record::NetworkRecord;
use crate::error::{Error, Result};
use crate::fault;
use crate::runtime::Shared;
use crate::sandbox::cgroups::root_tag;
use crate::sandbox::config::VmConfig;

/// What stands for no subnet in the configuration.
const NO_SUBNET: &str = "none";

/// Bytes of the digest that stands for a name which is too long.
const NAME_DIGEST_BYTES: usize = 16;

/// A lease that is to be taken: everything is known, nothing made.
pub(crate) struct NatPlan {
    directory: PathBuf,
    config: NatConfig,
    ports: Vec<PublishedPort>,
    store: Store,
    host: Option<Arc<HostNetwork>>,
    endpoints: EndpointConfig,
    vm: VmConfig,
    capabilities: Capabilities,
}

impl NatPlan {
    /// # Errors
    ///
    /// [`Error::Setting`] where the configuration has no bridge or subnet that can be.
    pub(super) fn of(
        runtime: &Shared,
        ports: &[PublishedPort],
        endpoints: &EndpointConfig,
        vm: &VmConfig,
        capabilities: Capabilities,
    ) -> Result<Self> {
        let settings = &runtime.config.network;
        let wrong = |key| move |source| Error::Setting { key, source };
        let bridge = settings.nat_bridge.parse();
        let bridge = bridge.map_err(wrong("network.nat_bridge"))?;
        let subnet = settings.nat_subnet.parse();
        let subnet = subnet.map_err(wrong("network.nat_subnet"))?;
        let config = NatConfig::new(bridge, subnet);
        let mut config = config.map_err(wrong("network.nat_bridge or network.nat_subnet"))?;
        if settings.nat_subnet6 != NO_SUBNET {
            let subnet = settings.nat_subnet6.parse();
            let with = subnet.and_then(|subnet| config.with_ipv6(subnet));
            config = with.map_err(wrong("network.nat_subnet6"))?;
        }
        Ok(Self {
            directory: settings.nat_dir.clone(),
            config,
            ports: ports.to_vec(),
            store: runtime.store.clone(),
            host: runtime.host_network.clone(),
            endpoints: EndpointConfig {
                // What is leased has no taps.
                interworking: match endpoints.interworking {
                    InterworkingModel::None => InterworkingModel::Tcfilter,
                    other => other,
                },
                ..endpoints.clone()
            },
            vm: vm.clone(),
            capabilities,
        })
    }

    /// Takes the lease, after the state of the sandbox says so, and plans how its namespace reaches
    /// the machine. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Network`], [`Error::Store`]; nothing is leased then.
    pub(super) fn lease(self, directory: &SandboxDir) -> Result<NetworkPlan> {
        let record = NatRecord {
            directory: self.directory,
            config: self.config,
            owner: owner(self.store.root(), directory.id())?,
        };
        NetworkRecord::of_lease(&record).write(directory)?;
        fault::point("network.lease-noted")?;
        let host = match self.host {
            Some(host) => host,
            None => Arc::new(HostNetwork::of_caller()?),
        };
        let nat = Nat::open(&record.directory, record.config.clone(), host)?;
        let lease = nat.lease(&record.owner, &self.ports, |other| {
            lives(&self.store, other)
        });
        let lease = NatLease {
            lease: lease?,
            nat,
            record,
            released: false,
        };
        fault::point("network.leased")?;
        for table in lease.lease.dropped_by() {
            let bridge = lease.record.config.bridge();
            tracing::warn!(
                table,
                "the host's table of nftables drops what it forwards, unless a rule of its own lets \
                 it through: allow what comes from and goes to the bridge {bridge}"
            );
        }
        let namespace = lease.lease.namespace();
        let (endpoints, vm) = (&self.endpoints, &self.vm);
        let mut plan = NetworkPlan::of(namespace, None, endpoints, vm, &self.capabilities)?;
        plan.lease = Some(lease);
        Ok(plan)
    }
}

/// A lease that a sandbox has. Dropping it gives it back.
pub(crate) struct NatLease {
    nat: Nat,
    lease: Lease,
    record: NatRecord,
    released: bool,
}

impl NatLease {
    /// As the state has it.
    pub(super) fn record(&self) -> &NatRecord {
        &self.record
    }

    /// Gives it back.
    pub(super) fn release(&mut self) -> vc_network::Result<()> {
        self.released = true;
        self.nat.release(&self.record.owner)
    }
}

impl Drop for NatLease {
    fn drop(&mut self) {
        if !self.released
            && let Err(error) = self.release()
        {
            tracing::warn!(%error, "a lease of the private network stays");
        }
    }
}

/// What the state says of a lease: enough to give it back, for whoever reads it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NatRecord {
    directory: PathBuf,
    config: NatConfig,
    owner: SandboxId,
}

impl NatRecord {
    /// Gives it back, if it was ever taken.
    pub(super) fn release(&self) -> vc_network::Result<()> {
        if !self.directory.exists() {
            return Ok(());
        }
        let host = HostNetwork::of_caller()?;
        Nat::open(&self.directory, self.config.clone(), host)?.release(&self.owner)
    }
}

/// By which name a sandbox has a lease: two state roots share the bridge, and their sandboxes may
/// have the same names.
fn owner(root: &Path, id: &SandboxId) -> Result<SandboxId> {
    let suffix = suffix(root);
    let name = match id.as_str() {
        short if short.len() + suffix.len() <= ID_BYTES_MAX => short.to_owned(),
        long => {
            let digest = Sha256::digest(long);
            let bytes = digest[..NAME_DIGEST_BYTES].iter();
            bytes.map(|byte| format!("{byte:02x}")).collect()
        }
    };
    Ok(SandboxId::new(format!("{name}{suffix}"))?)
}

fn suffix(root: &Path) -> String {
    format!("-{}", root_tag(root))
}

/// Whether a lease still has its sandbox. Of those of other state roots it is not known: their own
/// gc gives them back.
fn lives(store: &Store, other: &SandboxId) -> bool {
    let root = store.root();
    if !other.as_str().ends_with(&suffix(root)) {
        return true;
    }
    let Ok(listed) = store.list() else {
        return true;
    };
    let alive =
        |process: &Option<ProcessIdentity>| process.as_ref().is_some_and(ProcessIdentity::is_alive);
    listed.iter().any(|listed| {
        let own = owner(root, listed.id()).is_ok_and(|owner| owner == *other);
        own && match listed {
            Listed::Sandbox(record) => alive(&record.keeper) || alive(&record.vmm_process),
            // Nothing is known of its processes.
            Listed::Broken { .. } => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use vc_store::{SandboxRecord, StoreLimits, Verb};

    use super::*;

    #[test]
    fn a_lease_lives_as_long_as_its_keeper() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path().join("state"), StoreLimits::default());
        let other = Store::open(temp.path().join("other"), StoreLimits::default());
        let id: SandboxId = "web".parse().unwrap();
        let name = owner(store.root(), &id).unwrap();
        assert_ne!(name, owner(other.root(), &id).unwrap());
        assert!(!lives(&store, &name), "nobody has it");
        assert!(lives(&other, &name), "it is not of this root");
        let mut record = SandboxRecord::new(id.clone()).unwrap();
        record.keeper = Some(ProcessIdentity::current().unwrap());
        let creation = store.create(record, Verb::Run).unwrap();
        assert!(lives(&store, &name));
        creation.commit(|record| record.keeper = None).unwrap();
        assert!(!lives(&store, &name));
    }

    #[test]
    fn the_longest_names_have_a_lease_too() {
        let long = |last: &str| SandboxId::new("a".repeat(ID_BYTES_MAX - 1) + last).unwrap();
        let root = Path::new("/run/virtcontainers");
        let first = owner(root, &long("a")).unwrap();
        assert_ne!(first, owner(root, &long("b")).unwrap());
        assert!(first.as_str().ends_with(&suffix(root)));
    }
}
