//! Stands for a process that was added to a running container.

use oci_spec::runtime::Process as ProcessSpec;
use virtcontainers::keeper::Waiting;
use virtcontainers::{Lease, Process, Runtime, fault};

use super::report::Reporter;
use super::{Outcome, Report, Request, take_terminal};
use crate::commands::{container, fetch, runtime};
use crate::error::{FAILED, Failure};
use crate::join::{Added, Joined, Signals};

/// Adds the process, reports, and stays until it has ended. Says how it ended.
pub(super) fn enter(request: &Request, process: &ProcessSpec, reporter: Reporter) -> Outcome {
    Outcome::of_work(
        // In a box, what the adding takes goes with it.
        async |waiting| match reporter
            .while_awaited(Box::pin(add(request, process)))
            .await
        {
            Some(Ok(added)) => Box::pin(stay(added, reporter, waiting)).await,
            Some(Err(failure)) => reporter.fail(failure),
            None => Outcome::FAILED,
        },
    )
}

/// A process that runs.
struct Entered {
    runtime: Runtime,
    process: Process,
    signals: Signals,
    terminal: bool,
    /// Ends the process with this one.
    lease: Lease,
}

async fn add(request: &Request, process: &ProcessSpec) -> Result<Entered, Failure> {
    let runtime = runtime(&request.global())?;
    let signals = Signals::take().map_err(|error| Failure::plain(FAILED, &error))?;
    let id = container(&request.id)?;
    let sandbox = fetch(&runtime, &id).await?;
    let terminal = take_terminal(request, Some(process))?;
    let (process, lease) = sandbox.enter_container_leased(&id, process).await?;
    Ok(Entered {
        runtime,
        process,
        signals,
        terminal,
        lease,
    })
}

async fn stay(entered: Entered, reporter: Reporter, waiting: &Waiting) -> Outcome {
    let Entered {
        runtime,
        process,
        signals,
        terminal,
        lease,
    } = entered;
    if let Err(error) = reporter.send(&Report::Created) {
        // Whoever asked for the process is gone, and nobody else knows of it.
        tracing::warn!(%error, "nobody waits for the process; it is killed");
        return Outcome::FAILED;
    }
    waiting.begin();
    let limits = &runtime.config().limits;
    let mut joined = Joined::forwarding(Added::new(process), limits, signals, terminal);
    let outcome = Outcome::of(joined.command(None).await);
    drop(lease);
    match fault::point("exec.ended") {
        Ok(()) => outcome,
        Err(_) => Outcome::FAILED,
    }
}
