//! Ending the machine of a sandbox that another process keeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vc_store::{SandboxDir, SandboxRecord, Verb, View, WhenBusy};
use vc_types::{ContainerState, EndReason, ProcessIdentity, SandboxId, SandboxState};

use super::delete::end_machine;
use super::fetch;
use super::states::stop as mark_stopped;
use crate::error::{Error, Result};
use crate::runtime::{Shared, blocking};

/// How long a keeper may take to write down that its machine ended.
const KEEPER_SAYS_LIMIT: Duration = Duration::from_secs(2);

/// Between two looks at a state that is to change.
const STATE_RETRY: Duration = Duration::from_millis(10);

/// Ends the machine; its state stays. Without `force`, the containers are stopped politely first
/// and the guest writes back what reaches the host. Nothing of that can keep the machine: each
/// phase has its limit. A sandbox that has no machine is stopped.
pub(crate) async fn stop(runtime: &Arc<Shared>, id: &SandboxId, force: bool) -> Result<()> {
    let directory = runtime.store.get(id)?;
    if View::of(&directory.read()?).state == SandboxState::Stopped {
        return Ok(());
    }
    let limit = runtime.config.limits.operation_ms.duration();
    let begin = directory.clone();
    let operation = blocking(move || {
        Ok(match force {
            true => begin.take_over(Verb::Stop)?,
            false => begin.begin_operation(Verb::Stop, WhenBusy::Wait(limit))?,
        })
    })
    .await?;
    if !force {
        ask_politely(runtime, id, &directory.read()?).await;
    }
    let runtime = Arc::clone(runtime);
    blocking(move || {
        // The reason first: whoever sees the machine end knows that somebody asked for it.
        let record = operation.step_with("machine", |record| {
            record.end_reason.get_or_insert(EndReason::Requested);
            record.clone()
        })?;
        // The keeper sees it and lives on.
        let left = end_machine(&record);
        if !left.is_empty() {
            return Err(Error::Left {
                sandbox: directory.id().clone(),
                left: left.join(", "),
            });
        }
        runtime.driver.surroundings().end(directory.id());
        wait_for_keeper(&directory, record.keeper.as_ref());
        operation.commit(|record| mark_stopped(record, EndReason::Requested))?
    })
    .await
}

/// Failures here are for the log: the machine ends in any case.
async fn ask_politely(runtime: &Arc<Shared>, id: &SandboxId, record: &SandboxRecord) {
    let asked = async {
        let sandbox = fetch(runtime, id).await?;
        let containers = record.containers.iter();
        let running = containers.filter(|(_, entry)| {
            matches!(
                entry.state,
                ContainerState::Running | ContainerState::Paused
            )
        });
        let stopped = running.map(|(container, _)| sandbox.stop_container(container, false));
        for stopped in futures_util::future::join_all(stopped).await {
            stopped?;
        }
        sandbox.write_back().await;
        Ok::<(), Error>(())
    };
    if let Err(error) = asked.await {
        tracing::warn!(sandbox = %id, %error, "stopped without the guest's help");
    }
}

/// The keeper knows how its containers ended; what it writes counts. Where that is this process,
/// whoever acts on the sandbox here writes by itself.
fn wait_for_keeper(directory: &SandboxDir, keeper: Option<&ProcessIdentity>) {
    let own = ProcessIdentity::current().ok();
    let keeper = keeper.filter(|keeper| own.as_ref() != Some(keeper));
    let end = Instant::now() + KEEPER_SAYS_LIMIT;
    while keeper.is_some_and(|keeper| keeper.is_alive()) && Instant::now() < end {
        if directory.read().is_ok_and(|record| record.keeper.is_none()) {
            return;
        }
        std::thread::sleep(STATE_RETRY);
    }
}
