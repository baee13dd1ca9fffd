//! The network that a sandbox is to have, whatever its kind.

use vc_agent_client::network::GuestNetwork;
use vc_hypervisor::{Capabilities, Nic};
use vc_launch::Launcher;

use super::attached::AttachedNetwork;
use super::config::NetworkConfig;
use super::nat::NatPlan;
use super::plan::NetworkPlan;
use super::user::UserPlan;
use super::vhost_user::VhostUserPlan;
use crate::error::{Error, Result};
use crate::runtime::{Shared, blocking};
use crate::sandbox::config::SandboxConfig;
use crate::sandbox::machine::Device;
use crate::sandbox::place::Place;

/// Everything looked at, nothing made.
pub(crate) enum IntendedNetwork {
    /// What is in a namespace that is there.
    Namespace(Box<NetworkPlan>),
    /// What will be in one that is leased.
    Nat(Box<NatPlan>),
    /// What is at the other end of a socket.
    VhostUser(VhostUserPlan),
    /// What a process of the host has.
    User(UserPlan),
}

/// A network that is there for a machine to be launched with.
#[derive(Default)]
pub(crate) struct MadeNetwork {
    /// What takes it away again. It goes after the machine.
    pub(crate) attached: Option<AttachedNetwork>,
    /// What the guest is to have, where no namespace says it.
    pub(crate) guest: Option<GuestNetwork>,
    /// The devices of the machine.
    pub(crate) nics: Vec<Nic>,
    /// The process at their other end.
    pub(crate) device: Option<Device>,
}

impl IntendedNetwork {
    /// Looks at what is asked for; nothing where that is no network.
    ///
    /// # Errors
    ///
    /// Those of [`NetworkPlan::of`], [`Error::Setting`], and [`Error::Unsupported`] for a rate limit where
    /// there is nothing to limit.
    pub(crate) fn of(
        runtime: &Shared,
        config: &SandboxConfig,
        capabilities: Capabilities,
    ) -> Result<Option<Self>> {
        let (endpoints, vm) = (&config.endpoints, &config.vm);
        Ok(match &config.network {
            NetworkConfig::None => None,
            NetworkConfig::Nat { ports } => {
                let plan = NatPlan::of(runtime, ports, endpoints, vm, capabilities)?;
                Some(Self::Nat(Box::new(plan)))
            }
            NetworkConfig::User { .. } | NetworkConfig::VhostUser(_)
                if !endpoints.limits.is_empty() =>
            {
                return Err(Error::Unsupported {
                    what: "a rate limit of a network that has no interface on the host".into(),
                });
            }
            NetworkConfig::VhostUser(wanted) => {
                Some(Self::VhostUser(VhostUserPlan::of(wanted, &config.id)?))
            }
            NetworkConfig::User { ports } => Some(Self::User(UserPlan::of(runtime, ports)?)),
            NetworkConfig::Namespace {
                path,
                loopback_relay,
            } => {
                let host = runtime.host_network.as_deref();
                let plan = NetworkPlan::of(path, host, endpoints, vm, &capabilities)?;
                let plan = match runtime.config.network.loopback_relay || *loopback_relay {
                    true => plan.relayed()?,
                    false => plan,
                };
                Some(Self::Namespace(Box::new(plan)))
            }
        })
    }

    /// Whether a machine can get it that is there already.
    pub(crate) fn can_come_later(&self) -> bool {
        matches!(self, Self::Namespace(_) | Self::Nat(_))
    }

    /// Makes it for a machine that is there, as [`IntendedNetwork::make`] does for one that is launched.
    /// [`FollowedNetwork::update`](super::FollowedNetwork::update) brings what is in it.
    ///
    /// # Errors
    ///
    /// Those of [`IntendedNetwork::make`]; [`Error::Unsupported`] for one that cannot come later.
    pub(crate) async fn make_later(self, place: &Place) -> Result<AttachedNetwork> {
        let directory = place.directory().clone();
        let attached = match self {
            Self::Namespace(plan) => blocking(move || plan.late().attach(&directory)).await,
            Self::Nat(plan) => {
                blocking(move || plan.lease(&directory)?.late().attach(&directory)).await
            }
            Self::VhostUser(_) | Self::User(_) => Err(Error::Unsupported {
                what: "this network for a machine that is there".into(),
            }),
        };
        Ok(attached?.0)
    }

    /// Makes it for the sandbox in `place`, whose state says beforehand how it is undone.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Network`], [`crate::Error::Store`], [`crate::Error::Launch`]; nothing stays
    /// then.
    pub(crate) async fn make(self, launcher: &Launcher, place: &Place) -> Result<MadeNetwork> {
        let directory = place.directory().clone();
        let attached = match self {
            Self::Namespace(plan) => blocking(move || plan.attach(&directory)).await,
            Self::Nat(plan) => blocking(move || plan.lease(&directory)?.attach(&directory)).await,
            Self::VhostUser(plan) => return Ok(plan.make()),
            Self::User(plan) => return plan.make(launcher, place).await,
        };
        let (attached, nics) = attached?;
        Ok(MadeNetwork {
            attached: Some(attached),
            nics,
            ..MadeNetwork::default()
        })
    }
}
