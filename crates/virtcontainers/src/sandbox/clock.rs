//! Keeps the guest's wall clock right: emulated counters drift, and a host can be suspended.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinHandle;
use vc_agent_client::AgentClient;

/// The host's wall clock, in nanoseconds since 1970.
pub(super) fn host_realtime_ns() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

/// The task that tells the guest the time; it ends with this.
#[derive(Debug)]
pub(super) struct ClockKeeper(JoinHandle<()>);

impl ClockKeeper {
    /// Tells the time every `interval`. A guest that does not answer, as a paused one, is told
    /// again.
    pub(super) fn start(agent: AgentClient, interval: Duration) -> Self {
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                if let Err(error) = agent.set_clock(host_realtime_ns()).await {
                    tracing::debug!(%error, "the guest's clock is not corrected");
                }
            }
        }))
    }
}

impl Drop for ClockKeeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}
