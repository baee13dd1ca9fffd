//! How each link of a namespace is attached.

use vc_hypervisor::{Capabilities, Nic, NicBackend};
use vc_network::{
    Attachment, Endpoint, EndpointKind, HostDevices, InterworkingModel, Namespace, Passthrough,
    RateLimits, Tap, VhostNet,
};

use super::config::EndpointConfig;
use super::planned::Planned;
use crate::error::{Error, Result};

/// What was asked for, as far as the machine can have it.
#[derive(Clone, Debug)]
pub(super) struct EndpointRules {
    interworking: InterworkingModel,
    /// The most pairs of queues of each.
    queues: u16,
    /// Where the host's kernel moves the frames.
    vhost: Option<VhostNet>,
    limits: RateLimits,
    /// The host's devices, where its network cards are passed as a whole.
    passed: Option<HostDevices>,
}

impl EndpointRules {
    /// For a machine with so many processors that begins with so many interfaces.
    ///
    /// # Errors
    ///
    /// [`Error::VhostNet`] where it must be there and is not, [`Error::Unsupported`] for cards that
    /// the VMM cannot have.
    pub(super) fn of(
        config: &EndpointConfig,
        host: VhostNet,
        vcpus: u32,
        interfaces: usize,
        capabilities: &Capabilities,
    ) -> Result<Self> {
        let vhost = match (config.vhost, host.open(1)) {
            (vc_config::Vhost::Off, _) => None,
            (_, Ok(_)) => Some(host),
            (vc_config::Vhost::Auto, Err(error)) => {
                tracing::debug!(%error, "no vhost-net: the VMM moves the frames");
                None
            }
            (vc_config::Vhost::On, Err(source)) => {
                let device = host.device().to_owned();
                return Err(Error::VhostNet { device, source });
            }
        };
        let passed = match config.physical {
            vc_config::Physical::Join => None,
            vc_config::Physical::Pass if capabilities.passed_nics => Some(HostDevices::default()),
            vc_config::Physical::Pass => {
                return Err(Error::Unsupported {
                    what: "network.physical = \"pass\" with this VMM".into(),
                });
            }
        };
        // Each pair has a descriptor, and another with vhost.
        let each = if vhost.is_some() { 2 } else { 1 };
        let descriptors = capabilities.nic_descriptors_max / (each * interfaces.max(1));
        let max = u32::from(capabilities.nic_queues_max).min(vcpus);
        let max = usize::try_from(max).unwrap_or(usize::MAX).min(descriptors);
        let queues = usize::from(config.queues).min(max).max(1);
        Ok(Self {
            interworking: config.interworking,
            queues: u16::try_from(queues).unwrap_or(1),
            vhost,
            limits: config.limits,
            passed,
        })
    }

    /// Plans how one is attached; nothing is changed.
    ///
    /// # Errors
    ///
    /// [`Error::Network`] with what is wrong about the link.
    pub(super) fn plan(&self, namespace: &Namespace, endpoint: &Endpoint) -> Result<Planned> {
        if let (Some(host), EndpointKind::Physical { .. }) = (&self.passed, endpoint.kind()) {
            let passthrough = Passthrough::plan(host.clone(), namespace, endpoint)?;
            return Ok(Planned::Passed(Box::new(passthrough)));
        }
        self.join(namespace, endpoint)
            .map(|attachment| Planned::Joined(Box::new(attachment)))
    }

    /// The same by a tap, whatever the link is: nothing else comes to a running machine.
    ///
    /// # Errors
    ///
    /// Those of [`EndpointRules::plan`], and [`Error::Unsupported`] for a card that is to be passed.
    pub(super) fn plan_to_plug(
        &self,
        namespace: &Namespace,
        endpoint: &Endpoint,
    ) -> Result<Attachment> {
        match (&self.passed, endpoint.kind()) {
            (Some(_), EndpointKind::Physical { .. }) => Err(Error::Unsupported {
                what: "passing a network card to a running machine".into(),
            }),
            _ => self.join(namespace, endpoint),
        }
    }

    fn join(&self, namespace: &Namespace, endpoint: &Endpoint) -> Result<Attachment> {
        let model = model_of(self.interworking, endpoint.kind());
        let queues = self
            .queues
            .min(Attachment::queues_max(namespace, endpoint)?);
        let attachment = Attachment::plan(namespace, endpoint, model, queues)?;
        Ok(match self.limits.is_empty() {
            true => attachment,
            false => attachment.limit(namespace, self.limits)?,
        })
    }

    /// The device of one that is attached.
    ///
    /// # Errors
    ///
    /// [`Error::VhostNet`] when the host's vhost-net does not open any more.
    pub(super) fn nic(&self, id: String, endpoint: &Endpoint, tap: Tap) -> Result<Nic> {
        let fds = tap.into_queues();
        let vhost_fds = match &self.vhost {
            None => Vec::new(),
            Some(vhost) => vhost.open(fds.len()).map_err(|source| Error::VhostNet {
                device: vhost.device().to_owned(),
                source,
            })?,
        };
        Ok(Nic {
            id,
            mac: endpoint.mac().octets(),
            queues: u16::try_from(fds.len()).unwrap_or(u16::MAX),
            backend: NicBackend::Tap { fds, vhost_fds },
        })
    }
}

/// A tap is opened by the machine whatever was asked for. On a link that is itself on another one, a
/// macvtap would be made on that.
fn model_of(asked: InterworkingModel, kind: &EndpointKind) -> InterworkingModel {
    match (asked, kind) {
        (_, EndpointKind::Tap) => InterworkingModel::None,
        (
            InterworkingModel::Macvtap,
            EndpointKind::Macvlan | EndpointKind::Ipvlan | EndpointKind::Macvtap,
        ) => InterworkingModel::Tcfilter,
        (asked, _) => asked,
    }
}

#[cfg(test)]
mod tests {
    use vc_config::Vhost;
    use vc_hypervisor::qemu::CAPABILITIES;

    use super::*;

    fn rules(queues: u16, vhost: Vhost, vcpus: u32, interfaces: usize) -> Result<EndpointRules> {
        let config = EndpointConfig {
            queues,
            vhost,
            ..EndpointConfig::default()
        };
        let absent = VhostNet::at("/nonexistent/vhost-net");
        EndpointRules::of(&config, absent, vcpus, interfaces, &CAPABILITIES)
    }

    #[test]
    fn queues_are_no_more_than_processors_and_what_a_machine_can_have() {
        for (asked, vcpus, interfaces, queues) in [
            (1, 4, 1, 1),
            (4, 2, 1, 2),
            (4, 8, 1, 4),
            (u16::MAX, 240, 1, CAPABILITIES.nic_queues_max),
            (16, 16, 64, 2),
            (0, 1, 1, 1),
        ] {
            let rules = rules(asked, Vhost::Auto, vcpus, interfaces).unwrap();
            assert_eq!(rules.queues, queues, "{asked} {vcpus} {interfaces}");
        }
    }

    #[test]
    fn vhost_that_is_not_there_is_used_by_nobody_or_refused_by_name() {
        assert!(rules(1, Vhost::Auto, 1, 1).unwrap().vhost.is_none());
        assert!(rules(1, Vhost::Off, 1, 1).unwrap().vhost.is_none());
        let error = rules(1, Vhost::On, 1, 1).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/vhost-net"), "{error}");
    }

    #[test]
    fn a_link_that_can_have_no_macvtap_has_filters() {
        let macvtap = |kind: &EndpointKind| model_of(InterworkingModel::Macvtap, kind);
        assert_eq!(macvtap(&EndpointKind::Veth), InterworkingModel::Macvtap);
        assert_eq!(macvtap(&EndpointKind::Ipvlan), InterworkingModel::Tcfilter);
        assert_eq!(macvtap(&EndpointKind::Tap), InterworkingModel::None);
        // Nothing is attached in another way than was asked for.
        let none = model_of(InterworkingModel::None, &EndpointKind::Veth);
        assert_eq!(none, InterworkingModel::None);
    }
}
