//! How a sandbox comes up: each stage consumes the one before, and dropping any of them undoes
//! everything up to it.
//!
//! ```text
//! Prepared ──▶ Launched ──▶ Connected ──▶ Sandbox
//! all that     VMM, device   the agent     shares mounted, containers made
//! is asked for processes run answers
//! is possible
//! ```

mod connect;
mod launch;
mod prepare;

use std::sync::Arc;

pub(crate) use prepare::MKFS;

use vc_store::SandboxRecord;
use vc_types::Timeline;

use super::config::SandboxConfig;
use super::place::Place;
use super::{Sandbox, failure};
use crate::container::saved;
use crate::error::{Error, Result, Stage};
use crate::fault;
use crate::runtime::{Shared, blocking};

/// Makes a sandbox and its containers, none of them started.
pub(crate) async fn create(runtime: &Arc<Shared>, config: SandboxConfig) -> Result<Sandbox> {
    let id = config.id.clone();
    // What cannot be is refused before anything is touched.
    let prepared = prepare::Prepared::new(runtime, config)?;
    let mut record = SandboxRecord::new(id)?;
    prepared.describe(&mut record);
    let mut timeline = Timeline::default();
    timeline.step("prepared");
    let mut place = Place::reserve(runtime, record).await?;
    fault::point("create.reserved")?;
    match come_up(runtime, prepared, &mut place, &mut timeline).await {
        Ok(up) => up.into_sandbox(place, timeline).await,
        Err((stage, source)) => {
            let what = format!("{stage} failed");
            let record = failure::keep(runtime, place.directory(), &what, &source, &timeline);
            Err(Error::Start {
                sandbox: place.id().clone(),
                stage,
                record: Box::new(record),
                source: Box::new(source),
            })
        }
    }
}

/// An error, and the stage in which it came.
type Staged = (Stage, Error);

fn at<E: Into<Error>>(stage: Stage) -> impl Fn(E) -> Staged {
    move |error| (stage, error.into())
}

/// Keeps what the containers' processes were asked to be, for those who add others.
async fn save_processes(config: &SandboxConfig, place: &Place) -> Result<()> {
    let directory = place.path().to_owned();
    let processes: Vec<_> = config
        .containers
        .iter()
        .filter_map(|container| Some((container.id.clone(), container.spec.process().clone()?)))
        .collect();
    blocking(move || {
        processes
            .iter()
            .try_for_each(|(id, process)| saved::save(&directory, id, process))
    })
    .await
}

async fn come_up(
    runtime: &Arc<Shared>,
    prepared: prepare::Prepared,
    place: &mut Place,
    timeline: &mut Timeline,
) -> Result<connect::Connected, Staged> {
    save_processes(&prepared.config, place)
        .await
        .map_err(at(Stage::Launch))?;
    let launched = launch::launch(runtime, prepared, place, timeline)
        .await
        .map_err(at(Stage::Launch))?;
    place
        .describe(&launched.machine)
        .await
        .map_err(at(Stage::Launch))?;
    connect::connect(runtime, launched, timeline).await
}
