use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vc_network::{BitRate, InterworkingModel, PublishedPort, RateLimits};

use super::vhost_user::VhostUserConfig;
use crate::error::{Error, Result};

/// The network of a sandbox, as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NetworkConfig {
    /// Loopback alone.
    #[default]
    None,
    /// What is in a network namespace of the host: each of its links that has an address becomes an
    /// interface of the guest, with the link's name, addresses and routes.
    Namespace {
        /// Where it is, such as `/run/netns/web` or `/proc/PID/ns/net`.
        path: PathBuf,
        /// Whether connections that are made inside the namespace to its loopback addresses come to
        /// those of the guest, as a port-forward of Kubernetes needs it. Programs in the namespace
        /// reach each other by them no more then.
        #[serde(default)]
        loopback_relay: bool,
    },
    /// Connections that a process of the host makes for the guest: nothing is set up or changed
    /// for it. `[network]` of the configuration says which process.
    User {
        /// Ports of the host that lead to ports of the guest.
        ports: Vec<PublishedPort>,
    },
    /// One interface whose frames a process moves by vhost-user.
    VhostUser(VhostUserConfig),
    /// An address behind a private bridge of the host, by which the guest reaches what the host
    /// reaches, but not its loopback; `[network]` of the configuration says which bridge.
    Nat {
        /// Ports of the host that lead to ports of the guest.
        ports: Vec<PublishedPort>,
    },
}

/// How each link of a network namespace becomes an interface of the guest.
///
/// ```
/// use virtcontainers::EndpointConfig;
///
/// let mut settings = vc_config::Network::default();
/// settings.send_rate = Some(vc_config::Rate::new(10_000_000));
/// let config = EndpointConfig::of(&settings)?;
/// assert!(config.limits.receive.is_none());
/// # Ok::<(), virtcontainers::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConfig {
    /// How it reaches the machine. A link that is a tap does by itself, and one that can have no
    /// macvtap does by filters.
    pub interworking: InterworkingModel,
    /// How a link that is a network card of the host reaches it.
    pub physical: vc_config::Physical,
    /// Pairs of queues, and no more than the machine has processors.
    pub queues: u16,
    /// Whether the host's kernel moves the frames.
    pub vhost: vc_config::Vhost,
    /// How much each receives and sends.
    pub limits: RateLimits,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            interworking: InterworkingModel::default(),
            physical: vc_config::Physical::Join,
            queues: 1,
            vhost: vc_config::Vhost::Auto,
            limits: RateLimits::default(),
        }
    }
}

impl EndpointConfig {
    /// What the configuration says.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a rate that cannot be.
    pub fn of(settings: &vc_config::Network) -> Result<Self> {
        let rate = |key, rate: Option<vc_config::Rate>| {
            let rate = rate.map(|rate| BitRate::new(rate.bits_per_second()));
            rate.transpose()
                .map_err(|source| Error::Setting { key, source })
        };
        Ok(Self {
            interworking: match settings.interworking {
                vc_config::Interworking::Tcfilter => InterworkingModel::Tcfilter,
                vc_config::Interworking::Macvtap => InterworkingModel::Macvtap,
                vc_config::Interworking::None => InterworkingModel::None,
            },
            physical: settings.physical,
            queues: u16::try_from(settings.queues).unwrap_or(u16::MAX),
            vhost: settings.vhost,
            limits: RateLimits {
                receive: rate("network.receive_rate", settings.receive_rate)?,
                send: rate("network.send_rate", settings.send_rate)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_a_setting_was_there_is_read() {
        let old = r#"{"interworking":"macvtap","queues":2,"vhost":"off","limits":{"send":8000}}"#;
        let read: EndpointConfig = serde_json::from_str(old).unwrap();
        assert_eq!(read.physical, vc_config::Physical::Join);
        assert_eq!(
            (read.interworking, read.queues),
            (InterworkingModel::Macvtap, 2)
        );
        assert!(read.limits.send.is_some());
        let text = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<EndpointConfig>(&text).unwrap(), read);
    }
}
