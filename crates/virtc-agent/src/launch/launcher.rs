//! Where makers come from: the one that stands by, or a new one.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::maker::{Maker, Working, has_ended};
use super::task::Task;
use crate::error::Result;
use crate::reaper::Reaper;

/// After an exec's end, before the next one's maker is started: the answer to the host goes first.
const STAND_BY_DELAY: Duration = Duration::from_millis(2);

/// Starts the processes that make containers.
#[derive(Debug, Default)]
pub(crate) struct Launcher {
    pub(super) reaper: Reaper,
    standby: Mutex<Option<Maker>>,
}

impl Launcher {
    /// Without a maker that stands by.
    pub(crate) fn new(reaper: Reaper) -> Self {
        Self {
            reaper,
            standby: Mutex::default(),
        }
    }

    /// Has a maker do the task.
    pub(super) fn give(
        &self,
        task: &Task,
        fds: &[BorrowedFd<'_>],
        inherited: Vec<OwnedFd>,
    ) -> Result<Working> {
        let standby = self.standby().take_if(|_| inherited.is_empty());
        if let Some(maker) = standby.filter(Maker::waits) {
            match maker.wake().and_then(|maker| maker.give(task, fds)) {
                // It was killed for memory, and nobody has noticed yet.
                Err(error) if has_ended(&error) => {}
                given => return given,
            }
        }
        Maker::start(&self.reaper, inherited)?.give(task, fds)
    }

    /// Has a maker stand by, and returns when it waits.
    pub(crate) async fn stand_by(&self) -> Result<()> {
        let maker = Maker::stand_by(&self.reaper)?;
        maker.ready().await?;
        *self.standby() = Some(maker);
        Ok(())
    }

    /// Has a maker stand by from soon on: where one exec was, others follow.
    pub(crate) fn expect_another(self: &Arc<Self>) {
        let launcher = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(STAND_BY_DELAY).await;
            let mut standby = launcher.standby();
            if standby.as_ref().is_some_and(Maker::waits) {
                return;
            }
            match Maker::stand_by(&launcher.reaper) {
                Ok(maker) => *standby = Some(maker),
                // The next exec starts its own, and says what is wrong.
                Err(error) => tracing::debug!("{}", error.chain()),
            }
        });
    }

    fn standby(&self) -> MutexGuard<'_, Option<Maker>> {
        self.standby.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
