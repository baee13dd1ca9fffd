//! Signals to containers, and to those that have ended.

use tokio::time::timeout;
use vc_types::{ContainerId, ContainerState, Signal};

use super::handle::SandboxHandle;
use crate::error::{Error, Result};
use crate::fault;

impl SandboxHandle {
    /// Sends a signal to the first process of a container, or to all of them.
    ///
    /// Who is told that the container has ended finds that in its state.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], [`Error::ContainerEnded`] when the process has ended, [`Error::Agent`].
    pub async fn kill_container(
        &self,
        container: &ContainerId,
        signal: Signal,
        all: bool,
    ) -> Result<()> {
        let state = self.existing(container)?;
        fault::point("kill.begun")?;
        let sent = match all {
            true => self.0.guest.signal_all(container, signal).await,
            false => self.0.guest.signal(container, None, signal).await,
        };
        match sent {
            // It has ended, and its machine has not, or has just now.
            Err(error) if error.is_of_an_end() => {
                if state != ContainerState::Stopped && matches!(error, Error::Agent(_)) {
                    self.note_end(container).await;
                }
                return Err(Error::ContainerEnded {
                    container: container.clone(),
                });
            }
            sent => sent?,
        }
        fault::point("kill.sent")
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    ///
    /// [`Error::Agent`] when the process is not there.
    pub async fn signal_process(&self, container: &ContainerId, signal: Signal) -> Result<()> {
        self.0.guest.signal(container, None, signal).await
    }

    /// Writes down how a container has ended of which the guest says that it has: whoever waits for
    /// its end may not have come to that yet. Engines take a container that is said to have ended,
    /// and whose state says that it runs, for one that cannot be ended.
    async fn note_end(&self, container: &ContainerId) {
        // The guest may say that it has ended and not how.
        let limit = self.0.runtime.config.limits.agent_call_ms.duration();
        match timeout(limit, self.wait_process(container)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%container, %error, "how it ended is not known"),
            Err(_) => tracing::warn!(%container, "the guest does not say how it ended"),
        }
    }
}
