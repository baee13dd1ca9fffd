//! Stands for a process that was added to a running container.

use std::fs::File;

use oci_spec::runtime::Process as ProcessSpec;
use virtcontainers::{Process, Runtime};

use super::{Outcome, Report, Request, take_terminal};
use crate::commands::{block_on, container, fetch, runtime};
use crate::error::{FAILED, Failure};
use crate::join::{Added, Joined, Signals};

/// Adds the process, reports, and stays until it has ended. Says how it ended.
pub(super) fn enter(request: &Request, process: &ProcessSpec, report: File) -> Outcome {
    let stood = block_on(async {
        match add(request, process).await {
            Ok((runtime, process, signals, terminal)) => {
                if let Err(error) = Report::Created.send(report) {
                    tracing::debug!(%error, "nobody waits for the report");
                }
                stay(&runtime, process, signals, terminal).await
            }
            Err(failure) => {
                if let Err(error) = Report::Failed(failure.into()).send(report) {
                    tracing::debug!(%error, "nobody waits for the report");
                }
                Outcome::FAILED
            }
        }
    });
    stood.unwrap_or(Outcome::FAILED)
}

async fn add(
    request: &Request,
    process: &ProcessSpec,
) -> Result<(Runtime, Process, Signals, bool), Failure> {
    let runtime = runtime(&request.global())?;
    let signals = Signals::take().map_err(|error| Failure::plain(FAILED, &error))?;
    let id = container(&request.id)?;
    let sandbox = fetch(&runtime, &id).await?;
    let terminal = take_terminal(request, Some(process))?;
    let process = sandbox.enter_container(&id, process).await?;
    Ok((runtime, process, signals, terminal))
}

async fn stay(runtime: &Runtime, process: Process, signals: Signals, terminal: bool) -> Outcome {
    let limits = &runtime.config().limits;
    // With this process, the one that it stands for ends.
    let lease = process.lease();
    if let Err(error) = &lease {
        tracing::warn!(%error, "the process outlives the one that stands for it");
    }
    let mut joined = Joined::forwarding(Added::new(process), limits, signals, terminal);
    Outcome::of(joined.command(None).await)
}
