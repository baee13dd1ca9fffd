//! Keeps the guest's wall clock right: emulated counters drift, and a host can be suspended.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use vc_agent_client::AgentClient;

/// What is not corrected, in nanoseconds, besides what cannot be known.
const TOLERANCE_NS: i64 = 50_000_000;

/// How long an answer may take that is trusted at once.
const LONG_NS: i64 = 200_000_000;

/// How often a guest is asked that answers slowly: then it is a slow one.
const READS_MAX: usize = 3;

/// The host's wall clock, in nanoseconds since 1970.
pub(super) fn host_realtime_ns() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

/// A guest's clock. One at a time corrects it: two that find the same difference would do it twice.
#[derive(Debug)]
struct GuestClock {
    agent: AgentClient,
    turn: Mutex<()>,
}

/// What a guest's clock showed, some time between two moments of the host's.
struct Read {
    asked: i64,
    guest: i64,
    answered: i64,
}

impl GuestClock {
    /// Compares it with the host's, and corrects it where it is wrong.
    async fn correct(&self) -> Result<(), vc_agent_client::Error> {
        let _turn = self.turn.lock().await;
        let mut read = self.read().await?;
        for _ in 1..READS_MAX {
            if read.answered.saturating_sub(read.asked) <= LONG_NS {
                break;
            }
            // It says little: the guest may have stood still between the question and the answer.
            read = self.read().await?;
        }
        if let Some(correction) = correction(&read) {
            tracing::debug!(correction_ns = correction, "the guest's clock is corrected");
            self.agent.clock(correction).await?;
        }
        Ok(())
    }

    async fn read(&self) -> Result<Read, vc_agent_client::Error> {
        let asked = host_realtime_ns();
        let guest = self.agent.clock(0).await?;
        let answered = host_realtime_ns();
        Ok(Read {
            asked,
            guest,
            answered,
        })
    }
}

/// What the guest's clock is to be corrected by: it was read somewhere between the question and
/// the answer, so a difference that this explains is none.
fn correction(read: &Read) -> Option<i64> {
    let &Read {
        asked,
        guest,
        answered,
    } = read;
    let half = answered.saturating_sub(asked).max(0) / 2;
    let offset = asked.saturating_add(half).saturating_sub(guest);
    let explained = TOLERANCE_NS.saturating_add(half);
    (offset.unsigned_abs() > explained.unsigned_abs()).then_some(offset)
}

/// The task that keeps the guest's clock right; it ends with this.
#[derive(Debug)]
pub(super) struct ClockKeeper {
    clock: Arc<GuestClock>,
    task: JoinHandle<()>,
}

impl ClockKeeper {
    /// Looks every `interval`. A guest that does not answer, as a paused one, is asked again.
    pub(super) fn start(agent: AgentClient, interval: Duration) -> Self {
        let turn = Mutex::default();
        let clock = Arc::new(GuestClock { agent, turn });
        let kept = Arc::clone(&clock);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                if let Err(error) = kept.correct().await {
                    tracing::debug!(%error, "the guest's clock is not corrected");
                }
            }
        });
        Self { clock, task }
    }

    /// Compares the guest's clock with the host's now, and corrects it where it is wrong.
    ///
    /// # Errors
    ///
    /// When the agent does not answer.
    pub(super) async fn correct(&self) -> Result<(), vc_agent_client::Error> {
        self.clock.correct().await
    }
}

impl Drop for ClockKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn correction(asked: i64, guest: i64, answered: i64) -> Option<i64> {
        super::correction(&Read {
            asked,
            guest,
            answered,
        })
    }

    #[test]
    fn what_the_way_explains_is_not_corrected() {
        // Read at once, with an answer that takes its time; and the other way round.
        assert_eq!(correction(0, 0, 800 * MS), None);
        assert_eq!(correction(0, 800 * MS, 800 * MS), None);
        assert_eq!(correction(0, 50 * MS, 0), None);
    }

    #[test]
    fn what_is_wrong_is_corrected_by_the_difference() {
        assert_eq!(correction(0, 51 * MS, 0), Some(-51 * MS));
        assert_eq!(correction(1000 * MS, 0, 1020 * MS), Some(1010 * MS));
        assert!(correction(i64::MAX, i64::MIN, i64::MAX).is_some());
        // The host's own clock was set back meanwhile.
        assert_eq!(correction(100 * MS, 100 * MS, 0), None);
    }
}
