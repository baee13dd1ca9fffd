//! The standard streams of a process, see [`crate::Sandbox::attach_output`].

pub use agent_protocol::frame::Stream;
pub use vc_agent_client::Error;
pub use vc_agent_client::stream::{CopyEnd, GuestWait, Incoming, Outgoing, Sent};
