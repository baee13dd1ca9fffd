//! Stands for a container that joins the sandbox of another one.

use std::fs::File;

use vc_types::SandboxId;
use virtcontainers::{Bundle, Lease, Process, Runtime};

use super::keep::run_hooks;
use super::{Outcome, Report, Request, no_sandbox, take_terminal};
use crate::commands::{block_on, container, runtime};
use crate::error::{FAILED, Failure};
use crate::join::{Added, Joined, Signals};

/// Makes the container, reports, and stays until it has ended. Says how it ended.
pub(super) fn join(
    request: &Request,
    bundle: Bundle,
    sandbox: &SandboxId,
    report: File,
) -> Outcome {
    let stood = block_on(async {
        match make(request, bundle, sandbox).await {
            Ok(made) => stay(made, report).await,
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

/// A container that waits for its start.
struct Made {
    runtime: Runtime,
    process: Process,
    signals: Signals,
    terminal: bool,
    /// Ends the container with this process.
    lease: Lease,
}

async fn make(request: &Request, bundle: Bundle, sandbox: &SandboxId) -> Result<Made, Failure> {
    let runtime = runtime(&request.global())?;
    let signals = Signals::take().map_err(|error| Failure::plain(FAILED, &error))?;
    let id = container(&request.id)?;
    let terminal = take_terminal(request, bundle.spec().process().as_ref())?;
    let fetched = runtime.fetch_sandbox(sandbox).await;
    let sandbox = fetched.map_err(|error| match error.is_not_found() {
        true => no_sandbox(&request.id, sandbox),
        false => error.into(),
    })?;
    let neighbours = runtime.neighbours(sandbox.id())?;
    let config = bundle.container(id.clone(), &neighbours, request.cgroup_driver())?;
    let process = sandbox.create_container(config).await?;
    let lease = async {
        run_hooks(&runtime, sandbox.id(), &id).await?;
        process.lease()
    };
    let lease = match lease.await {
        Ok(lease) => lease,
        Err(error) => {
            if let Err(error) = process.remove_container().await {
                tracing::warn!(%error, "not everything of it is removed");
            }
            return Err(error.into());
        }
    };
    Ok(Made {
        runtime,
        process,
        signals,
        terminal,
        lease,
    })
}

async fn stay(made: Made, report: File) -> Outcome {
    let Made {
        runtime,
        process,
        signals,
        terminal,
        lease,
    } = made;
    if let Err(error) = Report::Created.send(report) {
        // Whoever asked for the container is gone, and nobody else knows of it.
        tracing::warn!(%error, "nobody waits for the container; it is removed");
        if let Err(error) = process.remove_container().await {
            tracing::warn!(%error, "not everything of it is removed");
        }
        return Outcome::FAILED;
    }
    let limits = &runtime.config().limits;
    let mut joined = Joined::forwarding(Added::new(process), limits, signals, terminal);
    let outcome = Outcome::of(joined.command(None).await);
    drop(lease);
    outcome
}
