//! Stands for a container that joins the sandbox of another one.

use vc_types::SandboxId;
use virtcontainers::{Bundle, Lease, Process, Runtime, fault};

use super::keep::{run_hooks, run_last_hooks};
use virtcontainers::keeper::Waiting;

use super::report::Reporter;
use super::view::Viewer;
use super::{Outcome, Report, Request, no_sandbox, take_terminal};
use crate::commands::{container, runtime};
use crate::error::{FAILED, Failure};
use crate::join::{Added, Joined, Signals};

/// Makes the container, reports, and stays until it has ended. Says how it ended.
pub(super) fn join(
    request: &Request,
    bundle: Bundle,
    sandbox: &SandboxId,
    viewer: &Viewer,
    reporter: Reporter,
) -> Outcome {
    Outcome::of_work(
        // In a box, what the making takes goes with it.
        async |waiting| match Box::pin(make(request, bundle, sandbox, viewer, &reporter)).await {
            Ok(made) => Box::pin(stay(made, reporter, waiting)).await,
            Err(failure) => reporter.fail(failure),
        },
    )
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

/// Its creation is short and ends in any case: dropping it would leave its undoing to nobody.
async fn make(
    request: &Request,
    bundle: Bundle,
    sandbox: &SandboxId,
    viewer: &Viewer,
    reporter: &Reporter,
) -> Result<Made, Failure> {
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
    let root = &runtime.config().runtime.root;
    let config = bundle.container(id.clone(), &neighbours, request.cgroup_driver(), root)?;
    let process = sandbox.create_container(config.clone()).await?;
    let hooks = runtime.container_hooks(sandbox.id(), &id)?;
    let prepared = async {
        let lease = process.lease()?;
        fault::point("stand-in.made")?;
        match reporter.while_awaited(run_hooks(&hooks)).await {
            Some(run) => run?,
            None => return Err(Failure::new(FAILED, "nobody waits for the container")),
        }
        viewer.show(&config)?;
        Ok(lease)
    };
    let lease = match prepared.await {
        Ok(lease) => lease,
        Err(failure) => {
            if let Err(error) = process.remove_container().await {
                tracing::warn!(%error, "not everything of it is removed");
            }
            run_last_hooks(&hooks).await;
            return Err(failure);
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

async fn stay(made: Made, reporter: Reporter, waiting: &Waiting) -> Outcome {
    let Made {
        runtime,
        process,
        signals,
        terminal,
        lease,
    } = made;
    if let Err(error) = reporter.send(&Report::Created) {
        // Whoever asked for the container is gone, and nobody else knows of it.
        tracing::warn!(%error, "nobody waits for the container; it is removed");
        if let Err(error) = process.remove_container().await {
            tracing::warn!(%error, "not everything of it is removed");
        }
        return Outcome::FAILED;
    }
    waiting.begin();
    let limits = &runtime.config().limits;
    let mut joined = Joined::forwarding(Added::new(process), limits, signals, terminal);
    let outcome = Outcome::of(joined.command(None).await);
    drop(lease);
    outcome
}
