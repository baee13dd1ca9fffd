//! What containers have used, as lines in the form of runc's `events`.

mod shape;

use std::process::ExitCode;
use std::time::Duration;

use vc_types::{ContainerId, ContainerState};
use virtcontainers::{Error, SandboxHandle};

use self::shape::Event;
use super::{Done, block_on, container, fetch, runtime};
use crate::cli::{EventsArgs, GlobalArgs};
use crate::error::{FAILED, Failure};
use crate::output;

/// Shows the statistics of a container, once or until it ends; with them, that it ran out of
/// memory.
pub(crate) fn events(global: &GlobalArgs, args: &EventsArgs) -> Done {
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    block_on(async {
        let sandbox = fetch(&runtime, &id).await?;
        if args.stats {
            return stats(&sandbox, &id).await;
        }
        let watched = follow(&sandbox, &id, args.interval);
        match watched.await {
            // Its end is the end of what there is to show.
            Err(failure) if has_ended(&sandbox, &id) => {
                tracing::debug!(failure = %failure.line(), "the container has ended");
                Ok(())
            }
            done => done,
        }
    })??;
    Ok(ExitCode::SUCCESS)
}

async fn stats(sandbox: &SandboxHandle, id: &ContainerId) -> Result<(), Failure> {
    let stats = sandbox.stats_container(id).await?;
    show(&Event::stats(id, &stats))
}

async fn follow(
    sandbox: &SandboxHandle,
    id: &ContainerId,
    interval: Duration,
) -> Result<(), Failure> {
    let shown = async {
        loop {
            stats(sandbox, id).await?;
            tokio::time::sleep(interval).await;
        }
    };
    let told = async {
        loop {
            if sandbox.get_oom_event().await? == *id {
                show(&Event::oom(id))?;
            }
        }
    };
    tokio::select! {
        done = shown => done,
        done = told => done,
        ended = sandbox.monitor() => Ok(ended.map(drop)?),
    }
}

fn has_ended(sandbox: &SandboxHandle, id: &ContainerId) -> bool {
    match sandbox.status_container(id) {
        Ok(status) => status.state == ContainerState::Stopped,
        Err(error) => matches!(error, Error::NoContainer { .. }) || error.is_not_found(),
    }
}

fn show(event: &Event<'_>) -> Result<(), Failure> {
    let line = serde_json::to_string(event).map_err(|error| Failure::plain(FAILED, &error))?;
    Ok(output::line(&line)?)
}
