//! A stopped sandbox that gets a machine again.

use std::sync::Arc;

use vc_store::View;
use vc_types::{SandboxId, SandboxState, Timeline};

use super::config::SandboxConfig;
use super::create::{boot, prepare_again};
use super::place::Place;
use super::{Sandbox, SandboxHandle, fetch};
use crate::container::{Limits, saved};
use crate::error::{Error, Result};
use crate::runtime::Shared;

/// A sandbox that was started.
#[derive(Debug)]
pub enum Started {
    /// It had a machine, which somebody else keeps.
    Fetched(SandboxHandle),
    /// It had none. The new one is kept by the caller.
    Kept(Box<Sandbox>),
}

/// Starts the containers of a sandbox that wait for it; where it is stopped, a machine is booted
/// and all of its containers are made again.
pub(crate) async fn start(runtime: &Arc<Shared>, id: &SandboxId) -> Result<Started> {
    let directory = runtime.store.get(id)?;
    let view = View::of(&directory.read()?);
    view.state.transition(SandboxState::Running)?;
    if view.state != SandboxState::Stopped {
        let sandbox = fetch(runtime, id).await?;
        sandbox.start().await?;
        return Ok(Started::Fetched(sandbox));
    }
    let config = stored_config(runtime, id)?;
    let prepared = prepare_again(runtime, config)?;
    let place = Place::reopen(runtime, directory, |record| prepared.describe_again(record)).await?;
    let mut timeline = Timeline::default();
    timeline.step("prepared");
    let sandbox = Box::pin(boot(runtime, prepared, place, timeline)).await?;
    sandbox.start().await?;
    Ok(Started::Kept(Box::new(sandbox)))
}

/// What the sandbox was asked to be, with the containers that it has now.
fn stored_config(runtime: &Shared, id: &SandboxId) -> Result<SandboxConfig> {
    let directory = runtime.store.get(id)?;
    let record = directory.read()?;
    let mut config = saved::load_sandbox(directory.path())?;
    if config.id != *id {
        return Err(Error::System {
            attempt: format!("find what sandbox {id} was asked to be"),
            source: std::io::ErrorKind::InvalidData.into(),
        });
    }
    let mut containers: Vec<_> = record.containers.iter().collect();
    containers.sort_by_key(|(_, entry)| entry.number);
    for (container, entry) in containers {
        if !entry.creating {
            config
                .containers
                .push(saved::load(directory.path(), container)?);
        }
    }
    let used: Limits = config
        .containers
        .iter()
        .map(|container| Limits::of(&container.spec))
        .sum();
    match config.vm.largest {
        Some(_) => config.sized_for(used.demand()),
        None => Ok(config),
    }
}
