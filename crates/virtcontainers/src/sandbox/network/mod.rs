//! The network of a sandbox: how what is in a network namespace of the host reaches the guest, and
//! the calls about it.
//!
//! ```text
//! NetworkPlan ──▶ AttachedNetwork ──▶ the guest's interfaces
//! namespace open,  taps and filters,    by one call of the agent
//! links scanned    noted in the state
//! ```

mod attached;
mod calls;
mod config;
mod follow;
mod guest;
mod plan;
mod record;

pub(crate) use attached::AttachedNetwork;
pub use calls::{Address, Interface, Route};
pub use config::NetworkConfig;
pub(crate) use follow::FollowedNetwork;
pub(crate) use plan::NetworkPlan;
pub(crate) use record::undo;
