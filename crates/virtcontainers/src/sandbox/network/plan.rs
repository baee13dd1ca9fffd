//! What a sandbox's network will be: everything looked at, nothing changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vc_hypervisor::Capabilities;
use vc_network::{Endpoint, HostNetwork, LoopbackRelay, Namespace, Scan, VhostNet, Watch};

use super::config::EndpointConfig;
use super::endpoint::EndpointRules;
use super::nat::NatLease;
use super::planned::Planned;
use crate::error::{Error, Result};
use crate::sandbox::config::VmConfig;

/// A network namespace whose links can reach a machine.
pub(crate) struct NetworkPlan {
    pub(super) path: PathBuf,
    pub(super) namespace: Namespace,
    /// Since before the scan, so that no change between the two is lost.
    pub(super) watch: Watch,
    pub(super) scan: Scan,
    pub(super) rules: EndpointRules,
    pub(super) endpoints: Vec<(Endpoint, Planned)>,
    /// Those of the machine, behind which its interfaces can be.
    pub(super) root_ports: u8,
    pub(super) relay: Option<LoopbackRelay>,
    /// By which the namespace is there, where it was made for the sandbox.
    pub(super) lease: Option<NatLease>,
    /// Links, by their index, that come to the machine with the first look at the namespace.
    pub(super) awaited: BTreeSet<u32>,
}

impl NetworkPlan {
    /// Opens the namespace and plans an attachment for each of its links. `host` is the host's
    /// network where the caller is in another one.
    ///
    /// # Errors
    ///
    /// [`Error::Network`] with the link that cannot be, [`Error::Interfaces`] for more than a
    /// machine can have, [`Error::VhostNet`].
    pub(crate) fn of(
        path: &Path,
        host: Option<&HostNetwork>,
        endpoints: &EndpointConfig,
        vm: &VmConfig,
        capabilities: &Capabilities,
    ) -> Result<Self> {
        let namespace = match host {
            Some(host) => Namespace::open_beside(path, host)?,
            None => Namespace::open(path)?,
        };
        let watch = Watch::on(&namespace)?;
        let scan = Scan::of(&namespace)?;
        for left_out in &scan.left_out {
            tracing::info!(what = left_out.what, reason = left_out.reason, "left out");
        }
        let max = capabilities.nics_max;
        if scan.links.len() > max {
            return Err(Error::Interfaces {
                namespace: path.to_owned(),
                wanted: scan.links.len(),
                max,
            });
        }
        let links = scan.links.len();
        let rules = EndpointRules::of(
            endpoints,
            VhostNet::default(),
            vm.vcpus,
            links,
            capabilities,
        )?;
        let planned = scan.links.iter().map(|link| {
            let endpoint = Endpoint::new(link.clone())?;
            let planned = rules.plan(&namespace, &endpoint)?;
            Ok((endpoint, planned))
        });
        let planned = planned.collect::<Result<_>>()?;
        Ok(Self {
            path: path.to_owned(),
            rules,
            relay: None,
            namespace,
            watch,
            scan,
            endpoints: planned,
            root_ports: vm.root_ports,
            lease: None,
            awaited: BTreeSet::new(),
        })
    }

    /// The same without its links, for a machine that is there: they come to it as those that appear
    /// while it runs, with the first look at the namespace.
    pub(super) fn late(self) -> Self {
        Self {
            awaited: self.scan.links.iter().map(|link| link.index).collect(),
            scan: Scan::default(),
            endpoints: Vec::new(),
            ..self
        }
    }

    /// The same, with connections to the namespace's loopback addresses coming to the guest.
    ///
    /// # Errors
    ///
    /// [`Error::Network`] where that cannot be.
    pub(super) fn relayed(self) -> Result<Self> {
        let relay = LoopbackRelay::plan(&self.namespace)?;
        Ok(Self {
            relay: Some(relay),
            ..self
        })
    }
}
