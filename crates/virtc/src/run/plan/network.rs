//! The network of a throw-away machine: which one, and whom it asks for names.

use std::path::Path;

use vc_config::syntax::{NetworkSpec, PublishSpec};
use virtcontainers::{NetworkConfig, Protocol, PublishedPort};

use super::resolver::Resolver;
use super::usage;
use crate::cli::RunArgs;
use crate::error::Failure;

/// The network of a run, decided.
#[derive(Debug)]
pub(super) struct Networking {
    pub(super) config: NetworkConfig,
    /// What the machine's resolv.conf says.
    pub(super) resolver: String,
    /// What the user should know before it starts.
    pub(super) notices: Vec<String>,
}

impl Networking {
    /// Decides about it for a caller in the directory `cwd`.
    pub(super) fn of(args: &RunArgs, cwd: &Path) -> Result<Self, Failure> {
        let ports = ports(&args.publish)?;
        let asked = match &args.net {
            Some(text) => text.parse().map_err(usage)?,
            // Whoever publishes a port asks for a network.
            None if ports.is_empty() => NetworkSpec::None,
            None => NetworkSpec::User,
        };
        if !ports.is_empty() && matches!(asked, NetworkSpec::None | NetworkSpec::Namespace(_)) {
            let refused = format!("--net {asked} has no ports of the host to publish");
            return Err(Failure::usage(refused).hint("publish with --net user or --net nat"));
        }
        let (config, resolver) = match asked {
            NetworkSpec::None => (NetworkConfig::None, Resolver::default()),
            NetworkSpec::Namespace(path) => {
                let path = cwd.join(path);
                let resolver = Resolver::of_namespace(Path::new("/"), &path);
                let config = NetworkConfig::Namespace {
                    path,
                    loopback_relay: false,
                };
                (config, resolver)
            }
            NetworkSpec::Nat => {
                let resolver = Resolver::of_host(Path::new("/"));
                (NetworkConfig::Nat { ports }, resolver)
            }
            NetworkSpec::User => {
                let resolver = Resolver::at(virtcontainers::USER_RESOLVER, Path::new("/"));
                (NetworkConfig::User { ports }, resolver)
            }
        };
        Ok(Self {
            config,
            resolver: resolver.text,
            notices: resolver.notice.into_iter().collect(),
        })
    }
}

fn ports(texts: &[String]) -> Result<Vec<PublishedPort>, Failure> {
    let port = |text: &String| {
        let port: PublishSpec = text.parse().map_err(usage)?;
        Ok(PublishedPort {
            protocol: if port.udp {
                Protocol::Udp
            } else {
                Protocol::Tcp
            },
            host_address: port.address,
            host_port: port.host,
            guest_port: port.guest,
        })
    };
    texts.iter().map(port).collect()
}
