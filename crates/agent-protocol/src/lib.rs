//! What host and guest agent say to each other.
//!
//! Two ttrpc services share one connection: `grpc.AgentService` (with `grpc.Health`), whose names,
//! numbers and meanings are those of the Kata Containers 4.1 agent, and our own
//! `virtc.v1.GuestService` for what that one lacks. The messages and services are generated at
//! build time from `proto/`. The standard streams of processes travel on connections of their own
//! in the framing of [`frame`], because the end of a stream is never carried by the close of a
//! connection alone. [`oci_convert`] turns the OCI specification into messages and back.

#![deny(unsafe_code)]

pub mod frame;
pub mod oci_convert;
pub mod relay;
pub mod storages;

mod error;
mod text;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "generated from proto/, where the meanings are written down"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/modules.rs"));
}

pub use error::{Error, Result};
pub use generated::{
    agent, agent_ttrpc, csi, health, health_ttrpc, oci, types, virtc, virtc_ttrpc,
};
pub use text::text_prefix;

/// The answer that says nothing but "done".
pub use protobuf::well_known_types::empty::Empty;

/// What both sides agree on without asking, for the agent, which uses no other crate of ours.
pub use vc_types::{guest, limits};
