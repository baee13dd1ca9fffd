//! How a sandbox comes up: each stage consumes the one before, and dropping any of them undoes
//! everything up to it.
//!
//! ```text
//! Prepared ──▶ Launched ──▶ Connected ──▶ Sandbox
//! all that     VMM, device   the agent     shares mounted, containers made
//! is asked for processes run answers
//! is possible
//!    │                              ▲
//!    └── a machine of its kind ─────┘
//!        waits, and is taken
//! ```

mod connect;
mod launch;
mod prepare;
mod reach;
mod take;

use std::sync::{Arc, Mutex};

pub(crate) use prepare::Prepared;

use vc_store::{SandboxDir, SandboxRecord};
use vc_types::{SandboxId, Timeline};

use super::config::SandboxConfig;
use super::place::Place;
use super::waiting::WaitingConfig;
use super::{Sandbox, failure};
use crate::container::saved;
use crate::error::{Error, Result, Stage, chain};
use crate::factory::Origin;
use crate::fault;
use crate::runtime::{Shared, blocking};

/// Makes a sandbox and its containers, none of them started.
pub(crate) async fn create(runtime: &Arc<Shared>, config: SandboxConfig) -> Result<Sandbox> {
    let id = config.id.clone();
    // What exists, and what cannot be, is refused before anything is touched.
    if runtime.store.get(&id).is_ok() {
        return Err(vc_store::Error::Exists { id }.into());
    }
    let prepared = Prepared::new(runtime, config)?;
    let mut record = SandboxRecord::new(id)?;
    prepared.describe(&mut record)?;
    let mut timeline = Timeline::default();
    timeline.step("prepared");
    let place = Place::reserve(runtime, record).await?;
    fault::point("create.reserved")?;
    save(&prepared.config, &place).await?;
    Box::pin(boot(runtime, prepared, place, timeline)).await
}

/// Looks again whether a sandbox can be that was made before.
pub(super) fn prepare_again(runtime: &Arc<Shared>, config: SandboxConfig) -> Result<Prepared> {
    Prepared::new(runtime, config)
}

/// Brings the machine of a reserved place up. Where that fails, the place goes as it is dropped.
pub(super) async fn boot(
    runtime: &Arc<Shared>,
    prepared: Prepared,
    mut place: Place,
    mut timeline: Timeline,
) -> Result<Sandbox> {
    let config = prepared.config.clone();
    let refill = to_refill(runtime, &prepared);
    let coming = come_up(runtime, prepared, &mut place, &mut timeline, Beginning::Any);
    // On the heap: what a start holds from one wait to the next would fill a thread's stack.
    let mut up = Box::pin(coming).await;
    if let Err((stage, error)) = &up
        && let Some(template) = error.template()
    {
        let blameless = error.is_not_grown() || error.is_not_copied();
        let error = chain(error);
        tracing::warn!(sandbox = %place.id(), %stage, error, "it boots by itself now");
        let prepared = Prepared::new(runtime, config)?;
        place.describe_again(|record| prepared.describe_again(record))?;
        timeline = Timeline::default();
        let coming = come_up(
            runtime,
            prepared,
            &mut place,
            &mut timeline,
            Beginning::Boot,
        );
        up = Box::pin(coming).await;
        // Where that fails too, it was not the template's fault; nor is it that a VM does not grow, or that the host
        // has no memory for it.
        if up.is_ok() && !blameless {
            runtime.factory.discard(&template);
        }
    }
    match up {
        Ok(up) => {
            let mut sandbox = up.into_sandbox(place, timeline).await?;
            sandbox.refill = Mutex::new(refill);
            if sandbox.origin == Origin::Waited {
                let updated = sandbox.network.update();
                let updated = sandbox.machine.end().while_it_runs(sandbox.id(), updated);
                updated.await.map_err(|error| {
                    let failed = at(Stage::GuestPreparation)(error);
                    let directory = sandbox.place.directory();
                    not_started(runtime, directory, failed, &sandbox.timeline())
                })?;
            }
            sandbox.network.find_resolvers().await;
            Ok(sandbox)
        }
        Err(failed) => Err(not_started(runtime, place.directory(), failed, &timeline)),
    }
}

/// Why a start failed, with what is kept of it.
fn not_started(
    runtime: &Shared,
    directory: &SandboxDir,
    (stage, source): Staged,
    timeline: &Timeline,
) -> Error {
    let what = format!("{stage} failed");
    let record = failure::keep(runtime, directory, &what, &source, timeline);
    Error::Start {
        sandbox: directory.id().clone(),
        stage,
        record: Box::new(record),
        source: Box::new(source),
    }
}

/// A machine like the one that this sandbox needs, where such are to wait and can.
fn to_refill(runtime: &Arc<Shared>, prepared: &Prepared) -> Option<WaitingConfig> {
    if runtime.factory.wanted() == 0 {
        return None;
    }
    let config = &prepared.config;
    let key = prepared.surroundings.waiting_key(runtime, config).ok()?;
    key.map(|_| WaitingConfig::like(config, &runtime.config, &runtime.program))
}

/// An error, and the stage in which it came.
type Staged = (Stage, Error);

fn at<E: Into<Error>>(stage: Stage) -> impl Fn(E) -> Staged {
    move |error| (stage, error.into())
}

/// The guest of this sandbox's machine answers. How that came to be is told to the log: where a faster
/// way does not serve, another one is taken, and nothing else of the sandbox shows it.
fn answered(sandbox: &SandboxId, origin: &Origin) {
    tracing::debug!(%sandbox, ?origin, "its guest answers");
}

/// Keeps what is asked for, for those who add to it.
async fn save(config: &SandboxConfig, place: &Place) -> Result<()> {
    let directory = place.path().to_owned();
    let config = config.clone();
    blocking(move || saved::save_sandbox(&directory, &config)).await
}

/// How a machine may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    /// As its factory finds best.
    Any,
    /// With a boot: another way was tried.
    Boot,
}

async fn come_up(
    runtime: &Arc<Shared>,
    mut prepared: Prepared,
    place: &mut Place,
    timeline: &mut Timeline,
    beginning: Beginning,
) -> Result<connect::Connected, Staged> {
    if beginning == Beginning::Any
        && let Some(connected) = take::take(runtime, &mut prepared, place, timeline).await?
    {
        return Ok(connected);
    }
    let launched = launch::launch(runtime, prepared, place, timeline, beginning)
        .await
        .map_err(at(Stage::Launch))?;
    place
        .describe(&launched.machine)
        .await
        .map_err(at(Stage::Launch))?;
    let origin = launched.origin.clone();
    let connected = connect::connect(runtime, launched, timeline).await;
    connected.map_err(|(stage, error)| match origin {
        // A guest whose devices do not come, or are not served, shows it while it is prepared.
        Origin::Cloned(template) if matches!(stage, Stage::Boot | Stage::GuestPreparation) => {
            let source = Box::new(error);
            (stage, Error::NotCloned { template, source })
        }
        _ => (stage, error),
    })
}
