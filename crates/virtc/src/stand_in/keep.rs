//! Keeps the sandbox of one container, from its making to its end.

use vc_types::ContainerId;
use virtcontainers::factory::configured;
use virtcontainers::keeper::Waiting;
use virtcontainers::{
    Bundle, ContainerHooks, Error, HookKind, HostNamespaces, Runtime, RuntimeOptions, Sandbox,
    SandboxConfig, fault,
};

use super::report::Reporter;
use super::view::Viewer;
use super::{Outcome, Report, Request, take_terminal};
use crate::commands::{container, load_annotated, own_program};
use crate::error::{FAILED, Failure};
use crate::join::{Joined, Kept, Signals};

/// Makes the sandbox, reports, and stays until the container has ended. Says how it ended.
pub(super) fn keep(
    request: &Request,
    bundle: Bundle,
    entered: HostNamespaces,
    viewer: &Viewer,
    reporter: Reporter,
) -> Outcome {
    Outcome::of_work(async |waiting| {
        // In a box, what the making takes goes with it.
        let made = Box::pin(make(request, bundle, entered, viewer));
        match reporter.while_awaited(made).await {
            Some(Ok(made)) => Box::pin(stay(made, reporter, waiting)).await,
            Some(Err(failure)) => reporter.fail(failure),
            None => Outcome::FAILED,
        }
    })
}

/// A sandbox whose container waits for its start.
struct Made {
    runtime: Runtime,
    sandbox: Sandbox,
    container: ContainerId,
    signals: Signals,
    terminal: bool,
}

async fn make(
    request: &Request,
    bundle: Bundle,
    entered: HostNamespaces,
    viewer: &Viewer,
) -> Result<Made, Failure> {
    let annotations = bundle.annotations();
    let loaded = load_annotated(&request.global(), &annotations)?;
    // Signals count from here on: they are the container's.
    let signals = Signals::take().map_err(|error| Failure::plain(FAILED, &error))?;
    let container = container(&request.id)?;
    let terminal = take_terminal(request, bundle.spec().process().as_ref())?;
    let driver = request.cgroup_driver();
    let mut config = SandboxConfig::of_bundle(bundle, &container, &loaded.config, driver)?;
    config.network = entered.network;
    let runtime = Runtime::open(RuntimeOptions {
        factory: configured(&loaded.config, false),
        config: loaded.config,
        program: own_program(),
        host_network: Some(entered.host_network),
        ..RuntimeOptions::default()
    })?;
    let shown = config.containers.first().cloned();
    let sandbox = runtime.create_sandbox(config).await?;
    fault::point("stand-in.made")?;
    let hooks = runtime.container_hooks(sandbox.id(), &container)?;
    let completed = async {
        run_hooks(&hooks).await?;
        // Engines fill a namespace by hooks too.
        sandbox.update_network().await?;
        shown.map_or(Ok(()), |container| viewer.show(&container))
    };
    if let Err(failure) = completed.await {
        if let Err(error) = sandbox.delete().await {
            tracing::warn!(%error, "not everything is removed after the making failed");
        }
        run_last_hooks(&hooks).await;
        return Err(failure);
    }
    Ok(Made {
        runtime,
        sandbox,
        container,
        signals,
        terminal,
    })
}

/// Runs the hooks of a container that is being made; this process stands for it.
pub(super) async fn run_hooks(hooks: &ContainerHooks) -> Result<(), Error> {
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    hooks.run_creating(pid).await?;
    fault::point("stand-in.hooks-run")
}

/// Runs the hooks of a container that is gone because its making failed: those that ran before may
/// have left something to them.
pub(super) async fn run_last_hooks(hooks: &ContainerHooks) {
    if let Err(error) = hooks.run(HookKind::Poststop, None).await {
        tracing::warn!(%error, "hooks of a container that was not made");
    }
}

/// Carries streams and signals until the container's process has ended, and writes its end down.
async fn stay(made: Made, reporter: Reporter, waiting: &Waiting) -> Outcome {
    let Made {
        runtime,
        sandbox,
        container,
        signals,
        terminal,
    } = made;
    if let Err(error) = reporter.send(&Report::Created) {
        // Whoever asked for the container is gone, and nobody else knows of it.
        tracing::warn!(%error, "nobody waits for the container; it is removed");
        if let Err(error) = sandbox.delete().await {
            tracing::warn!(%error, "not everything of it is removed");
        }
        return Outcome::FAILED;
    }
    waiting.begin();
    sandbox.refill();
    let job = Kept {
        sandbox: &sandbox,
        container: &container,
        throw_away: false,
    };
    let limits = &runtime.config().limits;
    let mut joined = Joined::forwarding(job, limits, signals, terminal);
    let ended = joined.command(None).await;
    drop(joined);
    let outcome = Outcome::of(ended);
    // Its state stays until somebody deletes it.
    if let Err(error) = sandbox.keep(&container, outcome.status()).await {
        tracing::error!(%error, "the container's end is not written down");
    }
    outcome
}
