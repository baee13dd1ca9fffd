//! Network namespaces, and how what is in them reaches a virtual machine.
//!
//! A [`Namespace`] is opened by its path, or made and kept ([`MadeNamespace`]). A [`Scan`] says what
//! is in it: links with their addresses, routes, neighbours, as plain data that a state can hold. An
//! [`Endpoint`] is a link of it that the machine gets as an interface. An [`Attachment`] connects the
//! two by an [`InterworkingModel`]: with [`InterworkingModel::Tcfilter`], a tap is made beside the
//! link, and each gets what the other receives; with [`InterworkingModel::Macvtap`], a macvtap is made
//! on the link; with [`InterworkingModel::None`], the link is itself a tap. [`RateLimits`] say
//! how much goes by it.
//!
//! A [`Watch`] tells when a namespace has changed, and [`Scan::difference`] what.
//!
//! Where nobody has set up a network, [`Nat`] leases namespaces that have one behind a bridge.
//!
//! A [`FrameFilter`] keeps what makes a machine's connections from the host's loopback.
//!
//! A [`LoopbackRelay`] takes the connections that are made inside a namespace to its own addresses.
//!
//! What holds here:
//!
//! - The host's own namespace is refused: nothing of the host's network is ever changed, but by
//!   [`Nat`], which is told in which network it may ([`HostNetwork`]).
//! - What an attachment will add is known before it adds anything ([`Attachment::undo`]), so that a
//!   state which holds it is enough for any other process to take it away again. [`Undo`] can run
//!   twice, and after the link or the whole namespace has vanished.
//! - What was there is left as it was found. A link that has an ingress qdisc already is refused,
//!   because filters of two owners on it would fight.
//! - A tap that is made beside a link lives as long as its descriptors. Whoever gets them (the VMM)
//!   takes it along when it ends. A macvtap stays until it is undone.
//! - What does not reach the machine is named in [`Scan::left_out`], never dropped in silence.
//!
//! Calls block; those to the kernel's netlink do so for at most [`NETLINK_LIMIT`]. Asynchronous
//! callers make them on a blocking thread. No thread but one made for the purpose ever changes its
//! namespace. Everything but [`Endpoint`] and plain data needs `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`.

#![deny(unsafe_code)]

mod address;
mod attach;
mod difference;
mod endpoint;
mod error;
mod frame_filter;
mod interface_name;
mod interworking;
mod ioctl;
mod limits;
mod link;
mod loopback;
mod mac;
mod namespace;
mod nat;
mod neighbour;
mod netlink;
mod nft;
mod passthrough;
mod rate;
mod route;
mod scan;
mod tap;
mod undo;
mod vhost;
mod watch;

pub use address::{Cidr, LinkAddress};
pub use attach::{Attached, Attachment};
pub use difference::{ChangedLink, Difference};
pub use endpoint::{Endpoint, EndpointKind};
pub use error::{Error, Result};
pub use frame_filter::{AliasNetwork, FrameFilter};
pub use interface_name::InterfaceName;
pub use interworking::InterworkingModel;
pub use limits::{NETLINK_LIMIT, QUEUES_MAX};
pub use link::{Link, LinkKind};
pub use loopback::{
    LoopbackListeners, LoopbackRelay, LoopbackUndo, datagrams_inside, dial_inside,
    original_destination,
};
pub use mac::MacAddress;
pub use namespace::{MadeNamespace, Namespace, NamespaceId};
pub use nat::{HostNetwork, Lease, Nat, NatConfig, Protocol, PublishedPort};
pub use neighbour::Neighbour;
pub use passthrough::{HostDevices, Passthrough, PassthroughUndo};
pub use rate::{BitRate, Direction, RateLimits};
pub use route::{Route, RouteScope};
pub use scan::{LeftOut, Scan};
pub use tap::Tap;
pub use undo::Undo;
pub use vhost::VhostNet;
pub use watch::Watch;
