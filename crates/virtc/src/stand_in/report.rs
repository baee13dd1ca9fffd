use std::fs::File;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;
use virtcontainers::fault;

use super::Outcome;
use crate::error::Failure;

/// Bytes of a report. The words of a guest in it are bounded before.
const REPORT_BYTES_MAX: u64 = 1 << 20;

/// What the stand-in tells `create`, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The container is made and waits for its start.
    Created,
    /// It is not, and nothing is left of it.
    Failed(Failed),
}

/// Why a container was not made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) message: String,
    pub(crate) causes: Vec<String>,
    pub(crate) hint: Option<String>,
}

impl Report {
    /// Waits for it; nothing when the stand-in ended without a word.
    ///
    /// # Errors
    ///
    /// What the system says, or a report that is none.
    pub(crate) fn receive(pipe: File) -> io::Result<Option<Self>> {
        let mut text = Vec::new();
        pipe.take(REPORT_BYTES_MAX).read_to_end(&mut text)?;
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(io::Error::other)
    }
}

/// The stand-in's end of the pipe, in which somebody waits for its report.
#[derive(Debug)]
pub(super) struct Reporter(File);

impl Reporter {
    pub(super) fn new(pipe: File) -> Self {
        Self(pipe)
    }

    /// Runs `work` for as long as somebody waits for the report. When nobody does any more, it is
    /// dropped, which undoes what was done, and there is nothing to report.
    pub(super) async fn while_awaited<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.given_up() => {
                tracing::warn!("nobody waits for what is being made; it is given up");
                None
            }
            done = work => Some(done),
        }
    }

    /// Sends the report, whose end is the end of the pipe.
    ///
    /// # Errors
    ///
    /// What the system says, as when nobody waits for it.
    pub(super) fn send(mut self, report: &Report) -> io::Result<()> {
        let text = serde_json::to_vec(report).map_err(io::Error::other)?;
        // Who watched it did not wait for it.
        rustix::io::ioctl_fionbio(&self.0, false)?;
        self.0.write_all(&text)?;
        drop(self);
        fault::point("stand-in.reported").map_err(io::Error::other)
    }

    /// Says why nothing was made.
    pub(super) fn fail(self, failure: Failure) -> Outcome {
        if let Err(error) = self.send(&Report::Failed(failure.into())) {
            tracing::debug!(%error, "nobody waits for the report");
        }
        Outcome::FAILED
    }

    /// Waits until nobody has the other end, which is an error of this one.
    async fn given_up(&self) {
        let watched = async {
            let pipe = Sender::from_file(self.0.try_clone()?)?;
            pipe.ready(Interest::ERROR).await
        };
        if let Err(error) = watched.await {
            // The sending of the report notices it too.
            tracing::warn!(%error, "nobody watches whether the report is waited for");
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use rustix::pipe::pipe;
    use tokio::time::{Duration, timeout};

    use super::*;

    fn on_executor<T>(work: impl Future<Output = T>) -> T {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn a_report_arrives() {
        let (reader, writer) = pipe().unwrap();
        let reporter = Reporter::new(writer.into());
        let made = on_executor(reporter.while_awaited(async { 7 }));
        assert_eq!(made, Some(7));
        reporter.send(&Report::Created).unwrap();
        let received = Report::receive(reader.into()).unwrap();
        assert!(matches!(received, Some(Report::Created)));
    }

    #[test]
    fn work_goes_on_while_it_is_waited_for_and_is_dropped_after() {
        let (reader, writer) = pipe().unwrap();
        let reporter = Reporter::new(writer.into());
        on_executor(async {
            let mut work = Box::pin(reporter.while_awaited(pending::<()>()));
            let goes_on = timeout(Duration::from_millis(50), &mut work).await;
            assert!(goes_on.is_err());
            drop(reader);
            let ended = timeout(Duration::from_secs(5), work).await;
            assert_eq!(ended.unwrap(), None);
        });
        assert!(reporter.send(&Report::Created).is_err());
    }
}
