//! The ttrpc services: each call is checked here and done elsewhere.

mod agent;
mod copy;
mod details;
mod guest;
mod health;
mod hotplug;
mod network;
mod sandbox;
mod streams;

use std::sync::Arc;

use agent_protocol::agent_ttrpc::create_agent_service;
use agent_protocol::health_ttrpc::create_health;
use agent_protocol::virtc_ttrpc::create_guest_service;
use ttrpc::r#async::Server;

use crate::error::Result;
use crate::sandbox::Sandbox;

/// This agent's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What this agent has beyond Kata's, by name.
const FEATURES: [&str; 12] = [
    "virtc.v1.GuestService",
    "copy",
    "forget",
    "framed-streams",
    "grow",
    "network",
    "passfd-streams",
    "relay",
    "spec-extensions",
    "wait-detail",
    agent_protocol::guest::TIMED_SANDBOX,
    agent_protocol::guest::WHOLE_CONTAINERS,
];

/// Listens on `port`. Calls wait until the server is started, and are served until it is dropped.
pub(crate) fn listen(sandbox: &Arc<Sandbox>, port: u32) -> Result<Server> {
    let agent = agent::AgentCalls {
        sandbox: Arc::clone(sandbox),
    };
    let guest = guest::GuestCalls {
        sandbox: Arc::clone(sandbox),
    };
    let server = Server::new()
        .bind(&format!("vsock://-1:{port}"))?
        .register_service(create_agent_service(Arc::new(agent)))
        .register_service(create_guest_service(Arc::new(guest)))
        .register_service(create_health(Arc::new(health::HealthCalls)));
    Ok(server)
}
