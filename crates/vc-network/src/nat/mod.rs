//! A network for throw-away machines: a private bridge of the host, and addresses behind it.

mod bridge;
mod config;
mod forwarding;
mod host;
mod ipv6;
mod lease;
mod port;
mod rules;
mod state;

use std::path::PathBuf;
use std::sync::Arc;

use vc_types::SandboxId;

pub use config::NatConfig;
pub use host::HostNetwork;
pub use lease::Lease;
pub use port::{Protocol, PublishedPort};

use crate::error::{Error, Result, io};
use crate::interface_name::InterfaceName;
use crate::link::{self, LinkKind};
use crate::namespace::{MadeNamespace, Namespace};
use crate::nft;
use forwarding::Family;
use ipv6::Ipv6;
use state::{Locked, Record, State};

/// A network with address translation for machines that nobody has set one up for.
///
/// The first lease makes a bridge in the host's namespace, with the first address of the subnet. Each
/// lease is a network namespace of its own with one end of a veth, whose other end is a port of the
/// bridge; what is done with it then is what is done with every other namespace: it is scanned and
/// attached. The host translates addresses by a table of nftables of its own, `ip
/// virtcontainers-BRIDGE`, and one of `ip6` with the same name. The last lease takes all of it along.
///
/// **IPv6.** Where the configuration has a subnet of it, and the host has IPv6, a default route of it
/// and a kernel that translates it, a machine has an address of it too: that of the same number. This
/// is decided by the first lease. A host that listens to routers on the link of its default route, and
/// would not any more if it forwarded IPv6, is left alone, and so is one that uses the subnet itself:
/// machines have IPv4 alone then.
///
/// What a machine can reach: the host and what the host can reach. What it cannot: machines
/// of other leases (ports of the bridge are isolated, and nothing is routed back into the bridge),
/// the host's loopback addresses, or another lease's frames (hardware addresses are not learned).
/// Nobody but the host reaches a machine unasked, other than by its [`PublishedPort`]s.
///
/// **Forwarding.** Where the host does not forward packets, the first lease lets it. The last
/// one takes that back, unless somebody else filters or translates forwarded packets by then: such
/// as docker or podman, which have found forwarding on and would not turn it on again.
///
/// **Loopback.** A port published on a loopback address is translated too, with no process that
/// copies. For that, `route_localnet` is set on the bridge, and on nothing else; a rule before all
/// others drops what comes from the bridge for `127.0.0.0/8` or from it. IPv6 has no such switch:
/// what `::1` sends to such a port of itself leaves from another address of the bridge, and the
/// answers get `::1` again right before its socket.
///
/// **Others' rules.** What the host's own rules drop stays dropped ([`Lease::dropped_by`]): no table
/// of others is changed.
///
/// What is leased is in a file of the directory, which must be gone after a boot (as `/run` is), and
/// is changed under a lock. It says beforehand what is made, so that after `kill -9` the next user,
/// or [`Nat::collect`], takes away what has no owner any more.
///
/// ```no_run
/// use vc_network::{HostNetwork, Namespace, Nat, NatConfig, Scan};
/// use vc_types::SandboxId;
///
/// let host = HostNetwork::of_caller()?;
/// let nat = Nat::open("/run/virtcontainers/nat", NatConfig::default(), host)?;
/// let id = SandboxId::new("web").map_err(|error| error.to_string())?;
/// let lease = nat.lease(&id, &[], |_other| true)?;
/// let scan = Scan::of(&Namespace::open(lease.namespace())?)?;
/// nat.release(&id)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Nat {
    directory: PathBuf,
    config: NatConfig,
    host: Arc<HostNetwork>,
}

impl Nat {
    /// Uses the leases in `directory`, which is made where it is missing. Changes nothing else yet.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the directory cannot be made.
    pub fn open(
        directory: impl Into<PathBuf>,
        config: NatConfig,
        host: impl Into<Arc<HostNetwork>>,
    ) -> Result<Self> {
        let directory = directory.into();
        state::make_directory(&directory)?;
        Ok(Self {
            directory,
            config,
            host: host.into(),
        })
    }

    /// Gives `owner` an address and a namespace, with these ports of the host. Leases of owners that
    /// do not live are freed first, and so is an earlier one of the same owner.
    ///
    /// # Errors
    ///
    /// [`Error::NoAddressLeft`], [`Error::PortTaken`] for a port that another lease or a program of
    /// the host has, [`Error::SubnetTaken`] when the host uses the subnet already,
    /// [`Error::OtherNat`] while there are leases of another configuration, [`Error::OtherHost`]
    /// while there are some of another network, [`Error::NoIpv6`] for a port of IPv6 where there is
    /// none, [`Error::BridgeTaken`] when a link of the host has
    /// the bridge's name, [`Error::NoProgram`] without `nft`,
    /// [`Error::Locked`], and [`Error::Program`] and [`Error::Io`] when a step fails. Nothing of the
    /// lease stays then.
    pub fn lease(
        &self,
        owner: &SandboxId,
        ports: &[PublishedPort],
        lives: impl Fn(&SandboxId) -> bool,
    ) -> Result<Lease> {
        let mut locked = Locked::take(&self.directory)?;
        self.free(&mut locked, |other| other == owner || !lives(other))?;
        let first = locked.state.is_none();
        let mut state = match locked.state.take() {
            Some(state) => state,
            None => self.first_state()?,
        };
        if state.host != self.host.namespace().id() {
            let directory = self.directory.clone();
            locked.state = Some(state);
            return Err(Error::OtherHost { directory });
        }
        if !state.is_of(&self.config) {
            let error = Error::OtherNat {
                directory: self.directory.clone(),
                bridge: state.config.bridge().clone(),
                subnet: state.config.subnet(),
            };
            locked.state = Some(state);
            return Err(error);
        }
        let planned = self.plan(&state, owner, ports);
        let (record, held) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                locked.state = (!first).then_some(state);
                return Err(error);
            }
        };
        let table = rules::table_name(&self.config);
        let families: &[Family] = match state.ipv6 {
            Ipv6::Used { .. } => &[Family::Ipv4, Family::Ipv6],
            Ipv6::Left { .. } => &[Family::Ipv4],
        };
        state.leases.insert(owner.clone(), record.clone());
        let lease = Lease::of(&record, &state, held);
        // From here on, whoever comes next knows what there may be.
        locked.state = Some(state);
        let made = locked
            .store()
            .and_then(|()| self.make(&locked, owner))
            .and_then(|()| forwarding::dropped_by(self.host.namespace(), families, &table));
        match made {
            Ok(dropped_by) => Ok(lease.dropped_by_others(dropped_by)),
            Err(error) => {
                // The error that led here is the one to report.
                if let Err(error) = self.free(&mut locked, |other| other == owner) {
                    tracing::warn!(%owner, %error, "something of a failed lease stays");
                }
                Err(error)
            }
        }
    }

    /// Takes back what `owner` was given: its namespace, its address and its ports, and with the last
    /// lease the bridge and the rest. Does nothing for an owner that has no lease.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`], [`Error::Program`] and [`Error::Io`] when a step fails. It can be called
    /// again then.
    pub fn release(&self, owner: &SandboxId) -> Result<()> {
        let mut locked = Locked::take(&self.directory)?;
        self.free(&mut locked, |other| other == owner).map(|_| ())
    }

    /// Takes back what owners were given that do not live, and says which.
    ///
    /// # Errors
    ///
    /// Those of [`Nat::release`].
    pub fn collect(&self, lives: impl Fn(&SandboxId) -> bool) -> Result<Vec<SandboxId>> {
        let mut locked = Locked::take(&self.directory)?;
        self.free(&mut locked, |other| !lives(other))
    }

    /// What the first lease finds, and nobody has made yet.
    fn first_state(&self) -> Result<State> {
        let namespace = self.host.namespace();
        nft::check(namespace)?;
        let mut netlink = namespace.netlink()?;
        let bridge = self.config.bridge();
        let found = link::by_name(&mut netlink, bridge).map_err(io("look for the link", bridge))?;
        if found.is_some() {
            return Err(Error::BridgeTaken {
                link: bridge.clone(),
            });
        }
        let subnet = self.config.subnet();
        if let Some(by) = bridge::taken_by(&mut netlink, subnet)? {
            return Err(Error::SubnetTaken { subnet, by });
        }
        let ipv6 = Ipv6::of_host(namespace, &mut netlink, &self.config)?;
        if let Ipv6::Left { reason } = &ipv6 {
            tracing::info!(reason, "machines behind the bridge have no IPv6");
        }
        Ok(State {
            host: namespace.id(),
            config: self.config.clone(),
            forwarding_was_off: !forwarding::is_on(namespace, Family::Ipv4)?,
            ipv6,
            leases: Default::default(),
        })
    }

    fn plan(
        &self,
        state: &State,
        owner: &SandboxId,
        ports: &[PublishedPort],
    ) -> Result<(Record, Vec<std::os::fd::OwnedFd>)> {
        let address = state
            .config
            .addresses()
            .find(|address| state.leases.values().all(|other| other.address != *address))
            .ok_or(Error::NoAddressLeft {
                subnet: self.config.subnet(),
            })?;
        state.check_ports(ports)?;
        let held = port::hold(self.host.namespace(), ports)?;
        let record = Record {
            address,
            namespace: MadeNamespace::plan(state::namespaces(&self.directory), owner.as_str())?,
            ports: ports.to_vec(),
        };
        Ok((record, held))
    }

    fn make(&self, locked: &Locked, owner: &SandboxId) -> Result<()> {
        let Some((state, record)) = locked.lease(owner) else {
            return Ok(());
        };
        let host = self.host.namespace();
        // Before there is a way to anywhere.
        nft::apply(host, &rules::of(state))?;
        bridge::ensure(host, state)?;
        forwarding::turn_on(host, Family::Ipv4)?;
        if let Ipv6::Used { .. } = state.ipv6 {
            forwarding::turn_on(host, Family::Ipv6)?;
        }
        state::make_directory(&state::namespaces(&self.directory))?;
        let inside = record.namespace.make()?;
        bridge::connect(host, &inside, state, record.address)
    }

    /// Takes away the leases of these owners, and all when none is left. They are taken away where
    /// they were made, wherever the caller is.
    fn free(
        &self,
        locked: &mut Locked,
        gone: impl Fn(&SandboxId) -> bool,
    ) -> Result<Vec<SandboxId>> {
        let Some(state) = &mut locked.state else {
            return Ok(Vec::new());
        };
        let other;
        let host = match self.host.namespace() {
            own if own.id() == state.host => Some(own),
            _ => {
                other = HostNetwork::find(state.host);
                other.as_ref().map(HostNetwork::namespace)
            }
        };
        // Those of a namespace that has vanished have vanished with it, but for their own ones.
        let gone = |owner: &&SandboxId| host.is_none() || gone(owner);
        let owners: Vec<_> = state.leases.keys().filter(gone).cloned().collect();
        for owner in &owners {
            if let Some(record) = state.leases.get(owner) {
                if let Some(host) = host {
                    bridge::disconnect(host, state, record.address)?;
                }
                record.namespace.delete()?;
            }
        }
        for owner in &owners {
            state.leases.remove(owner);
        }
        if !state.leases.is_empty() {
            if let Some(host) = host
                && !owners.is_empty()
            {
                nft::apply(host, &rules::of(state))?;
                locked.store()?;
            }
            return Ok(owners);
        }
        if let Some(host) = host {
            take_apart(host, state)?;
        }
        locked.state = None;
        locked.store()?;
        Ok(owners)
    }
}

/// After the last lease.
fn take_apart(host: &Namespace, state: &State) -> Result<()> {
    let bridge: &InterfaceName = state.config.bridge();
    let mut netlink = host.netlink()?;
    let found = link::by_name(&mut netlink, bridge).map_err(io("look for the link", bridge))?;
    if let Some(found) = found
        && found.kind == LinkKind::Other("bridge".to_owned())
    {
        link::delete(&mut netlink, found.index).map_err(io("remove the bridge", bridge))?;
    }
    // With the bridge, there is no way any more to what the rules guard.
    let table = rules::table_name(&state.config);
    if state.forwarding_was_off {
        forwarding::turn_off(host, Family::Ipv4, &table)?;
    }
    if let Ipv6::Used {
        forwarding_was_off,
        forwarding_links,
    } = &state.ipv6
    {
        if *forwarding_was_off && forwarding::turn_off(host, Family::Ipv6, &table)? {
            forwarding::restore_links6(host, forwarding_links);
        }
        nft::delete_table(host, &rules::table6(&state.config))?;
    }
    nft::delete_table(host, &rules::table(&state.config))
}
