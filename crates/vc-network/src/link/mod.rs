mod change;
mod make;
mod read;

use serde::{Deserialize, Serialize};

pub(crate) use change::{delete, move_to, raise, raise_loopback, silence_ipv6};
pub(crate) use make::{add_address, isolate, join_bridge, make_bridge, make_macvtap, make_veth};
pub(crate) use read::{addresses_of, by_index, by_name, list, tap_flags};

use crate::address::LinkAddress;
use crate::interface_name::InterfaceName;
use crate::mac::MacAddress;

/// A link of a network namespace, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its index in the namespace. It stays the same when the link is renamed.
    pub index: u32,
    /// Its name.
    pub name: InterfaceName,
    /// What it is.
    pub kind: LinkKind,
    /// Its hardware address; `None` for a link that carries no Ethernet frames.
    pub mac: Option<MacAddress>,
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// Whether it is up (`IFF_UP`).
    pub up: bool,
    /// Whether neighbours are not asked for their addresses (`IFF_NOARP`).
    pub no_arp: bool,
    /// Its transmit queues.
    pub queues: u32,
    /// Its addresses, IPv4 and IPv6, in the kernel's order.
    pub addresses: Vec<LinkAddress>,
    /// IPv6 addresses that the link made for itself, as a machine's interface does too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_local: Vec<LinkAddress>,
}

/// What a link is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LinkKind {
    /// The loopback interface.
    Loopback,
    /// One end of a pair.
    Veth,
    /// An address of its own on another link.
    Macvlan,
    /// As macvlan, but with the other link's hardware address.
    Ipvlan,
    /// As macvlan, but with a file in place of the network stack.
    Macvtap,
    /// A file that carries Ethernet frames.
    Tap,
    /// A file that carries IP packets.
    Tun,
    /// A network card.
    Physical {
        /// The kind of bus, such as `pci`; `None` where the kernel does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bus: Option<String>,
        /// The device on it, such as `0000:03:00.0`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
    },
    /// Any other kind, by the kernel's name.
    Other(String),
}

impl LinkKind {
    /// The kernel's name of the kind.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Loopback => "loopback",
            Self::Veth => "veth",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Macvtap => "macvtap",
            Self::Tap => "tap",
            Self::Tun => "tun",
            Self::Physical { .. } => "physical",
            Self::Other(name) => name,
        }
    }
}
