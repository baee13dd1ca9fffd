//! What a sandbox's network will be: everything looked at, nothing changed.

use std::path::PathBuf;

use vc_hypervisor::Capabilities;
use vc_network::{
    Attachment, Endpoint, HostNetwork, InterworkingModel, LoopbackRelay, Namespace, Scan, Watch,
};

use super::config::NetworkConfig;
use super::nat::NatLease;
use crate::error::{Error, Result};

/// A network namespace whose links can reach a machine.
pub(crate) struct NetworkPlan {
    pub(super) path: PathBuf,
    pub(super) namespace: Namespace,
    /// Since before the scan, so that no change between the two is lost.
    pub(super) watch: Watch,
    pub(super) scan: Scan,
    pub(super) attachments: Vec<(Endpoint, Attachment)>,
    pub(super) relay: Option<LoopbackRelay>,
    /// By which the namespace is there, where it was made for the sandbox.
    pub(super) lease: Option<NatLease>,
}

impl NetworkPlan {
    /// Opens the namespace and plans an attachment for each of its links. `host` is the host's
    /// network where the caller is in another one. Connections to its loopback addresses come to the
    /// guest if the configuration says so, or with `relayed`.
    ///
    /// # Errors
    ///
    /// [`Error::Network`] with the link that cannot be, [`Error::Interfaces`] for more than a
    /// machine can have.
    pub(crate) fn of(
        config: &NetworkConfig,
        host: Option<&HostNetwork>,
        capabilities: &Capabilities,
        relayed: bool,
    ) -> Result<Option<Self>> {
        let NetworkConfig::Namespace {
            path,
            loopback_relay,
        } = config
        else {
            return Ok(None);
        };
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
                namespace: path.clone(),
                wanted: scan.links.len(),
                max,
            });
        }
        let attachments = scan.links.iter().map(|link| {
            let endpoint = Endpoint::new(link.clone())?;
            let attachment = Attachment::plan(&namespace, &endpoint, model_of(&endpoint), QUEUES)?;
            Ok((endpoint, attachment))
        });
        let attachments = attachments.collect::<Result<_>>()?;
        let relay = (*loopback_relay || relayed).then(|| LoopbackRelay::plan(&namespace));
        Ok(Some(Self {
            relay: relay.transpose()?,
            path: path.clone(),
            namespace,
            watch,
            scan,
            attachments,
            lease: None,
        }))
    }
}

/// Pairs of queues of an interface. More pay only where as many processors run at once.
pub(super) const QUEUES: u16 = 1;

/// How an endpoint reaches the machine: a tap is opened by it, anything else is joined to one.
pub(super) fn model_of(endpoint: &Endpoint) -> InterworkingModel {
    match endpoint.kind() {
        vc_network::EndpointKind::Tap => InterworkingModel::None,
        _ => InterworkingModel::default(),
    }
}
