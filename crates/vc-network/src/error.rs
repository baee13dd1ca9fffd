use std::io;
use std::path::PathBuf;

use vc_types::Hint;

use crate::interface_name::InterfaceName;
use crate::interworking::InterworkingModel;
use crate::limits::{NETLINK_LIMIT, QUEUES_MAX, QUOTED_BYTES_MAX};
use crate::mac::MacAddress;

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
                io::ErrorKind::NotFound if attempt.contains("tap") => {
                    Some("the kernel needs the module tun, and /dev/net/tun".to_owned())
                }
                _ => None,
            },
            _ => None,
        }
    }
}
