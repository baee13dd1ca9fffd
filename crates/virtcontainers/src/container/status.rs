use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use vc_store::{SandboxRecord, UnixMillis, View};
use vc_types::{ContainerId, ContainerState, EndReason, ExitStatus, Observer, SandboxId};

use crate::error::{Error, Result};

/// Where a container stands, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ContainerStatus {
    /// Its name.
    pub id: ContainerId,
    /// The sandbox that it is in.
    pub sandbox: SandboxId,
    /// Where it stands.
    pub state: ContainerState,
    /// Whether it is still being made, or its making was interrupted.
    pub creating: bool,
    /// The process on the host that stands for it, while that lives.
    pub pid: Option<i32>,
    /// How its process ended, once it has.
    pub exit: Option<ExitStatus>,
    /// Why its machine ended, where that is why it does not run.
    pub end_reason: Option<EndReason>,
    /// When it was made.
    pub created: UnixMillis,
    /// When its process started.
    pub started: Option<UnixMillis>,
    /// When its process ended.
    pub ended: Option<UnixMillis>,
    /// Its OCI bundle, where it has one.
    pub bundle: Option<PathBuf>,
    /// What it runs.
    pub command: Vec<String>,
    /// What whoever made it noted about it.
    pub annotations: BTreeMap<String, String>,
}

impl ContainerStatus {
    /// The status of a container by its sandbox's state. Whether processes live is looked at.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`].
    pub fn of(record: &SandboxRecord, container: &ContainerId) -> Result<Self> {
        let observer = Observer::of_this_process();
        let view = View::seen(record, &observer);
        Self::seen(record, &view, &observer, container)
    }

    /// The same by the view of its sandbox and whoever saw that, for those who ask for several.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`].
    pub fn seen(
        record: &SandboxRecord,
        view: &View,
        observer: &Observer,
        container: &ContainerId,
    ) -> Result<Self> {
        let (Some(seen), Some(entry)) = (
            view.containers.get(container),
            record.containers.get(container),
        ) else {
            return Err(Error::NoContainer {
                sandbox: record.id().clone(),
                container: container.clone(),
            });
        };
        let stand_in = entry.stand_in.as_ref().or(record.keeper.as_ref());
        let living = stand_in.filter(|process| observer.is_alive(process));
        let stopped = seen.state == ContainerState::Stopped;
        Ok(Self {
            id: container.clone(),
            sandbox: record.id().clone(),
            state: seen.state,
            creating: seen.creating,
            pid: living.filter(|_| !stopped).map(|process| process.pid()),
            exit: seen.exit.clone(),
            end_reason: view.end_reason.clone(),
            created: entry.created,
            started: entry.started,
            ended: entry.ended,
            bundle: entry.bundle.clone(),
            command: entry.command.clone(),
            annotations: entry.annotations.clone(),
        })
    }
}
