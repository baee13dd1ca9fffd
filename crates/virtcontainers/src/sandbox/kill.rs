//! Signals to containers, and to those that have ended.

use std::time::Duration;

use tokio::time::timeout;
use vc_types::{ContainerId, ContainerState, Signal};

use super::handle::SandboxHandle;
use super::process::ProcessExit;
use super::states::{self, Run};
use crate::error::{Error, Result};
use crate::fault;

/// How long the guest may take to say how a container has ended of which it has said that it has.
const END_TOLD_LIMIT: Duration = Duration::from_secs(2);

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
        let run = match self.existing(container)? {
            ContainerState::Stopped => None,
            _ => Run::of(&self.0.directory.read()?, container),
        };
        fault::point("kill.begun")?;
        let sent = match all {
            true => self.0.guest.signal_all(container, signal).await,
            false => self.0.guest.signal(container, None, signal).await,
        };
        match sent {
            // It has ended, and its machine has not, or has just now.
            Err(error) if error.is_of_an_end() => {
                // The end of a machine is in the state already.
                if let (Error::Agent(_), Some(run)) = (error, run) {
                    self.note_end(container, run).await;
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
    async fn note_end(&self, container: &ContainerId, run: Run) {
        let noted = async {
            let exit = ProcessExit::of(self.0.guest.wait(container, None).await?);
            let refused = exit.refused();
            states::run_ended(&self.0.directory, container, run, exit.status, refused).await
        };
        match timeout(END_TOLD_LIMIT, noted).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%container, %error, "its end is not written down"),
            Err(_) => tracing::warn!(%container, "the guest does not say how it has ended"),
        }
    }
}
