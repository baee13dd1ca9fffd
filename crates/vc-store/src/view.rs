//! A state as it is shown: what is stored, and what is known of the processes.

use std::collections::BTreeMap;

use serde::Serialize;
use vc_types::{
    ContainerId, ContainerState, EndReason, ExitStatus, Observer, ProcessIdentity, SandboxState,
};

use crate::record::{ContainerRecord, Operation, SandboxRecord, Verb};

/// What a sandbox is at this moment. Making a view writes nothing, whatever it finds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct View {
    /// Where it stands: stopped, whatever is stored, when its processes are gone.
    pub state: SandboxState,
    /// Why it ended, where that is known.
    pub end_reason: Option<EndReason>,
    /// What is done with it.
    pub activity: Option<Activity>,
    /// Its containers.
    pub containers: BTreeMap<ContainerId, ContainerView>,
}

/// What is done with a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Activity {
    /// Somebody does it now.
    Running {
        /// What.
        verb: Verb,
        /// How far it came.
        step: String,
        /// Who.
        pid: i32,
    },
    /// Its owner ended in the middle of it.
    Interrupted {
        /// What.
        verb: Verb,
        /// How far it came.
        step: String,
    },
}

/// What a container is at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContainerView {
    /// Where it stands.
    pub state: ContainerState,
    /// How its process ended, once it has.
    pub exit: Option<ExitStatus>,
    /// Whether it is still being made, or its making was interrupted.
    pub creating: bool,
}

impl View {
    /// The view of a record.
    ///
    /// ```
    /// use vc_store::{SandboxRecord, View};
    ///
    /// let record = SandboxRecord::new("web-1".parse()?)?;
    /// assert_eq!(View::of(&record).status(), "stopped");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(record: &SandboxRecord) -> Self {
        Self::seen(record, &Observer::of_this_process())
    }

    /// The same, for those who look at several.
    pub fn seen(record: &SandboxRecord, observer: &Observer) -> Self {
        let end_reason = end_reason(record, observer);
        let ended = record.state == SandboxState::Stopped || end_reason.is_some();
        let activity = record
            .operation
            .as_ref()
            .map(|operation| activity(operation, observer));
        let being_made = end_reason.is_none() && is_making(activity.as_ref());
        let containers = record.containers.iter().map(|(id, container)| {
            let view = if ended && !being_made {
                ended_container(container, end_reason.as_ref())
            } else {
                ContainerView {
                    state: container.state,
                    exit: container.exit.clone(),
                    creating: container.creating || ended,
                }
            };
            (id.clone(), view)
        });
        Self {
            state: if ended {
                SandboxState::Stopped
            } else {
                record.state
            },
            activity,
            containers: containers.collect(),
            end_reason,
        }
    }

    /// One or two words for a table.
    pub fn status(&self) -> String {
        match &self.activity {
            Some(Activity::Interrupted { verb, .. }) => format!("{verb} interrupted"),
            making if self.state == SandboxState::Stopped && is_making(making.as_ref()) => {
                "creating".to_owned()
            }
            Some(Activity::Running {
                verb: Verb::Delete | Verb::Gc,
                ..
            }) => "deleting".to_owned(),
            _ => match &self.end_reason {
                Some(EndReason::HostRebooted) => "stopped by reboot".to_owned(),
                _ => self.state.name().to_owned(),
            },
        }
    }
}

fn end_reason(record: &SandboxRecord, observer: &Observer) -> Option<EndReason> {
    let seen = what_ended(record, observer)?;
    // What was asked for says more than what was seen.
    Some(record.end_reason.clone().unwrap_or(seen))
}

/// The end of a sandbox as its processes tell it. A reason that is written down before they are
/// killed is none yet.
fn what_ended(record: &SandboxRecord, observer: &Observer) -> Option<EndReason> {
    let has_ended = |process: &ProcessIdentity| observer.has_ended(process);
    if observer
        .boot_id()
        .is_some_and(|current| *current != record.boot_id)
    {
        return Some(EndReason::HostRebooted);
    }
    if record.state == SandboxState::Stopped {
        return record.end_reason.clone();
    }
    if record.keeper.as_ref().is_some_and(has_ended) {
        return Some(EndReason::KeeperEnded);
    }
    if record.vmm_process.as_ref().is_some_and(has_ended) {
        let detail = "its VMM's process has ended".to_owned();
        return Some(EndReason::VmCrashed { detail });
    }
    let ended = record
        .processes
        .iter()
        .find(|process| has_ended(&process.identity));
    ended.map(|process| EndReason::DeviceProcessEnded {
        name: process.name.clone(),
    })
}

/// Whether somebody makes the sandbox.
fn is_making(activity: Option<&Activity>) -> bool {
    matches!(
        activity,
        Some(Activity::Running {
            verb: Verb::Create | Verb::Run,
            ..
        })
    )
}

fn ended_container(container: &ContainerRecord, reason: Option<&EndReason>) -> ContainerView {
    let ran = matches!(
        container.state,
        ContainerState::Running | ContainerState::Paused
    );
    let lost = || ExitStatus::Lost {
        reason: reason.cloned().unwrap_or(EndReason::Requested),
    };
    let exit = container.exit.clone().or_else(|| ran.then(lost));
    ContainerView {
        state: ContainerState::Stopped,
        exit,
        creating: false,
    }
}

fn activity(operation: &Operation, observer: &Observer) -> Activity {
    let (verb, step) = (operation.verb, operation.step.clone());
    if observer.has_ended(&operation.owner) {
        Activity::Interrupted { verb, step }
    } else {
        Activity::Running {
            verb,
            step,
            pid: operation.owner.pid(),
        }
    }
}
