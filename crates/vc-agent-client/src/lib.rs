//! The host's side of the guest's agent.
//!
//! [`Transport`] reaches a port of the guest whatever carries it; [`ReadyListener`] hears the one
//! call that the guest makes when it can serve; [`AgentClient`] makes the agent's calls, each with
//! a limit, and [`network`] has what those about the guest's network say; [`stream`] carries a
//! process's standard streams with ends that cannot be lost; [`relay`] carries connections.
//!
//! The guest is not trusted: what it sends is bounded by [`vc_types::limits`], and its texts are
//! cleaned of control characters before a person sees them.

#![forbid(unsafe_code)]

mod client;
mod copy;
mod create;
mod error;
mod greet;
pub mod network;
mod ready;
pub mod relay;
mod resources;
pub mod stream;
mod transport;

pub use client::{AgentClient, CallLimits};
pub use create::NewContainer;
pub use error::{Code, Error, Result};
pub use ready::{Ready, ReadyListener};
pub use transport::Transport;
