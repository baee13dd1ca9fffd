use std::io;
use std::path::PathBuf;

use vc_types::{Hint, SandboxId};

use crate::address::Cidr;
use crate::interface_name::InterfaceName;
use crate::interworking::InterworkingModel;
use crate::limits::{NAT_LOCK_LIMIT, NETLINK_LIMIT, QUEUES_MAX, QUOTED_BYTES_MAX, SAID_BYTES_MAX};
use crate::mac::MacAddress;
use crate::nat::PublishedPort;
use crate::rate::Direction;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a namespace could not be used, looked at or connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name, address or number that cannot be.
    #[error("the {what} {value:?} is not valid: {reason}")]
    Invalid {
        /// `interface name`, `MAC address`, `address`, `namespace name` or `number of queues`.
        what: &'static str,
        /// What was given, cut where it is absurdly long.
        value: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// A namespace's path leads nowhere.
    #[error("there is no network namespace at {}", path.display())]
    NamespaceGone {
        /// The path.
        path: PathBuf,
    },
    /// What is at a namespace's path is something else.
    #[error("{} is not a network namespace: it is {found}", path.display())]
    NotANetworkNamespace {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// The namespace is the host's own.
    #[error(
        "{} is the host's own network namespace: a machine has a network stack of its own and cannot \
         share the host's",
        path.display()
    )]
    HostNamespace {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {attempt} {object}")]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On which link, file or namespace.
        object: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The link vanished, or is another one by now.
    #[error("the link {link} (index {index}) is not in the network namespace any more")]
    LinkGone {
        /// Its name.
        link: InterfaceName,
        /// Its index.
        index: u32,
    },
    /// Two links have the same MAC address.
    #[error("the links {first} and {second} have the same MAC address {mac}")]
    SameMac {
        /// The address.
        mac: MacAddress,
        /// The one of them.
        first: InterfaceName,
        /// The other one.
        second: InterfaceName,
    },
    /// The machine cannot get an interface for this link.
    #[error("the link {link} of kind {kind:?} cannot be given to a machine: {reason}")]
    Impossible {
        /// Its name.
        link: InterfaceName,
        /// Its kind, by the kernel's name.
        kind: String,
        /// Why.
        reason: &'static str,
    },
    /// The interworking model is not there for this kind of link.
    #[error("the interworking model {model} is not supported for the link {link} of kind {kind:?}")]
    Unsupported {
        /// The model.
        model: InterworkingModel,
        /// The link.
        link: InterfaceName,
        /// Its kind, by the kernel's name.
        kind: String,
    },
    /// A program is needed that the host has not.
    #[error("the program {program} is not there")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// A program failed.
    #[error("{program} failed: {said}")]
    Program {
        /// The program.
        program: &'static str,
        /// What it said, cut where it is absurdly long.
        said: String,
    },
    /// The addresses for machines are all leased.
    #[error("all addresses of {subnet} are leased")]
    NoAddressLeft {
        /// The subnet.
        subnet: Cidr,
    },
    /// The host has the subnet in use.
    #[error("the subnet {subnet} is in use on this host: {by} is in it")]
    SubnetTaken {
        /// The subnet.
        subnet: Cidr,
        /// The address or the route.
        by: String,
    },
    /// A port of the host is not free.
    #[error("the port {port} is taken by {}", taker(owner.as_ref()))]
    PortTaken {
        /// The port.
        port: PublishedPort,
        /// The sandbox that has it; `None` for a program of the host, or when it is asked for twice.
        owner: Option<SandboxId>,
    },
    /// A port of IPv6 is to lead to a machine that has no IPv6.
    #[error("the port {port} cannot lead to a machine without IPv6: {reason}")]
    NoIpv6 {
        /// The port.
        port: PublishedPort,
        /// Why it has none.
        reason: String,
    },
    /// There are leases of another configuration.
    #[error(
        "{} has leases of the bridge {bridge} with the subnet {subnet}; there is one at a time",
        directory.display()
    )]
    OtherNat {
        /// Where the leases are.
        directory: PathBuf,
        /// Their bridge.
        bridge: InterfaceName,
        /// Their subnet.
        subnet: Cidr,
    },
    /// There are leases of another network.
    #[error("{} has leases of another network than the caller's", directory.display())]
    OtherHost {
        /// Where the leases are.
        directory: PathBuf,
    },
    /// A link has the name of the bridge that is to be made.
    #[error("the host has a link {link} already, which was not made for machines")]
    BridgeTaken {
        /// The link.
        link: InterfaceName,
    },
    /// Others have held a lock for too long.
    #[error("{} is still locked after {NAT_LOCK_LIMIT:?}", path.display())]
    Locked {
        /// What is locked.
        path: PathBuf,
    },
    /// A relay is there already.
    #[error("the network namespace {} has a table {table} of nftables already", path.display())]
    RelayInTheWay {
        /// The namespace.
        path: PathBuf,
        /// The table.
        table: &'static str,
    },
    /// A rate cannot be limited.
    #[error(
        "the rate at which the machine can {direction} by the link {link} cannot be limited with the \
         interworking model {model}"
    )]
    NoRateLimit {
        /// The link.
        link: InterfaceName,
        /// The direction.
        direction: Direction,
        /// The model.
        model: InterworkingModel,
    },
    /// A network card that a machine cannot get as a whole.
    #[error("the card of the link {link} ({device}) cannot be passed to a machine: {reason}")]
    CannotPass {
        /// The link.
        link: InterfaceName,
        /// Where it is on PCI.
        device: String,
        /// Why not.
        reason: String,
    },
    /// Something is there already that an attachment would add.
    #[error("the link {link} cannot be attached: {what} is there already")]
    InTheWay {
        /// The link.
        link: InterfaceName,
        /// The qdisc or the tap.
        what: String,
    },
}

/// Makes an [`Error::Io`] of a failed call.
pub(crate) fn io<E: Into<io::Error>>(
    attempt: &'static str,
    object: impl ToString,
) -> impl FnOnce(E) -> Error {
    let object = object.to_string();
    move |source| Error::Io {
        attempt,
        object,
        source: source.into(),
    }
}

/// Makes an [`Error::Invalid`], in which an absurd length is not repeated.
pub(crate) fn invalid(what: &'static str, value: &str, reason: &'static str) -> Error {
    Error::Invalid {
        what,
        value: value.chars().take(QUOTED_BYTES_MAX).collect(),
        reason,
    }
}

/// What a program said, on one line and not without an end.
pub(crate) fn limited(said: &str) -> String {
    let words: Vec<_> = said.split_whitespace().collect();
    words.join(" ").chars().take(SAID_BYTES_MAX).collect()
}

fn taker(owner: Option<&SandboxId>) -> String {
    match owner {
        Some(owner) => format!("the sandbox {owner}"),
        None => "another program of the host, or asked for twice".to_owned(),
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Invalid { what, .. } if *what == "number of queues" => {
                Some(format!("give one from 1 to {QUEUES_MAX}"))
            }
            Self::NamespaceGone { .. } | Self::NotANetworkNamespace { .. } => {
                Some("list those with a name: ip netns list".to_owned())
            }
            Self::HostNamespace { .. } => {
                Some("give the sandbox a network namespace of its own, or none".to_owned())
            }
            Self::SameMac { second, .. } => Some(format!(
                "give one of them another address: ip link set dev {second} address MAC"
            )),
            Self::InTheWay { link, .. } => Some(format!(
                "look what is there: tc qdisc show dev {link}; ip link"
            )),
            Self::NoProgram { package, .. } => Some(format!("install the package {package}")),
            Self::SubnetTaken { .. } => Some("choose a subnet that nobody uses".to_owned()),
            Self::PortTaken { port, .. } => Some(format!(
                "choose another port of the host than {}",
                port.host_port
            )),
            Self::CannotPass { .. } => Some(
                "join it to the machine as other links are: network.physical = \"join\"".to_owned(),
            ),
            Self::NoIpv6 { .. } => Some("publish it on an address of IPv4".to_owned()),
            Self::RelayInTheWay { path, .. } => Some(format!(
                "if no sandbox uses it: nsenter --net={} nft delete table inet virtcontainers",
                path.display()
            )),
            Self::OtherHost { .. } => Some(
                "choose another directory for them, or run it in the other network namespace"
                    .to_owned(),
            ),
            Self::BridgeTaken { .. } => Some("choose another name for the bridge".to_owned()),
            Self::Unsupported { kind, .. } if kind == "tap" => {
                Some("use the model none, by which the machine opens it".to_owned())
            }
            Self::Unsupported { .. } => Some("use the model tcfilter".to_owned()),
            Self::Io {
                source, attempt, ..
            } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some("run it as root".to_owned()),
                io::ErrorKind::TimedOut => Some(format!(
                    "the kernel did not answer within {NETLINK_LIMIT:?}; look for processes in state D"
                )),
                io::ErrorKind::NotFound if attempt.contains("filter") => Some(
                    "the kernel needs the modules sch_ingress, cls_u32 and act_mirred".to_owned(),
                ),
                io::ErrorKind::NotFound if attempt.contains("rate") => {
                    Some("the kernel needs the module sch_tbf".to_owned())
                }
                io::ErrorKind::NotFound if attempt.contains("tap") => {
                    Some("the kernel needs the module tun, and /dev/net/tun".to_owned())
                }
                _ => None,
            },
            _ => None,
        }
    }
}
