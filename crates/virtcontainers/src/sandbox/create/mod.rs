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

use vc_store::{SandboxRecord, Verb};
use vc_types::Timeline;

use super::Sandbox;
use super::config::SandboxConfig;
use super::reservation::Reservation;
use crate::error::{Error, Result, Stage, StartRecord};
use crate::fault;
use crate::runtime::Shared;

/// Makes a sandbox and its containers, none of them started.
pub(crate) async fn create(runtime: &Arc<Shared>, config: SandboxConfig) -> Result<Sandbox> {
    let id = config.id.clone();
    // What cannot be is refused before anything is touched.
    let prepared = prepare::Prepared::new(runtime, config)?;
    let mut record = SandboxRecord::new(id)?;
    prepared.describe(&mut record);
    let mut timeline = Timeline::default();
    timeline.step("prepared");
    let mut reservation = Reservation::make(runtime, record, Verb::Create).await?;
    fault::point("create.reserved")?;
    match come_up(runtime, prepared, &mut reservation, &mut timeline).await {
        Ok(up) => up.into_sandbox(reservation, timeline).await,
        Err((stage, source)) => Err(failed(runtime, &reservation, stage, source, &timeline)),
    }
}

/// An error, and the stage in which it came.
type Staged = (Stage, Error);

fn at<E: Into<Error>>(stage: Stage) -> impl Fn(E) -> Staged {
    move |error| (stage, error.into())
}

async fn come_up(
    runtime: &Arc<Shared>,
    prepared: prepare::Prepared,
    reservation: &mut Reservation,
    timeline: &mut Timeline,
) -> Result<connect::Connected, Staged> {
    let launched = launch::launch(runtime, prepared, reservation, timeline)
        .await
        .map_err(at(Stage::Launch))?;
    reservation
        .describe_machine(&launched.machine)
        .await
        .map_err(at(Stage::Launch))?;
    connect::connect(runtime, launched, timeline).await
}

/// Keeps what is known of the machine, before its directory goes.
fn failed(
    runtime: &Shared,
    reservation: &Reservation,
    stage: Stage,
    source: Error,
    timeline: &Timeline,
) -> Error {
    let mut record = StartRecord {
        console: reservation.last_lines(super::CONSOLE_LOG),
        vmm: reservation.last_lines(super::VMM_LOG),
        kept: None,
    };
    record.kept = reservation.keep_failure(runtime, stage, &source, timeline);
    Error::Start {
        sandbox: reservation.id().clone(),
        stage,
        record: Box::new(record),
        source: Box::new(source),
    }
}
