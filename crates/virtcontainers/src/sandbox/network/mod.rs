//! The network of a sandbox: how what is in a network namespace of the host reaches the guest, and
//! the calls about it.
//!
//! ```text
//! NetworkPlan ──▶ AttachedNetwork ──▶ the guest's interfaces
//! namespace open,  taps and filters,    by one call of the agent
//! links scanned    noted in the state
//! ```
//!
//! A [`NatPlan`](nat::NatPlan) makes the namespace before: it leases one. A
//! [`UserPlan`](user::UserPlan) needs none.

mod attached;
mod calls;
mod config;
mod endpoint;
mod follow;
mod guest;
mod intended;
mod nat;
mod plan;
mod planned;
mod record;
mod relay;
mod resolver;
mod user;
mod vhost_user;
mod way_out;

pub(crate) use attached::AttachedNetwork;
pub use calls::{Address, Interface, Route};
pub use config::{EndpointConfig, NetworkConfig};
pub(crate) use follow::FollowedNetwork;
pub(crate) use intended::{IntendedNetwork, MadeNetwork};
pub(crate) use record::undo;
pub(crate) use user::RESOLVER;
pub use vhost_user::VhostUserConfig;
