//! Where the states of a sandbox and of its containers change on disk; what may follow what is in
//! the tables of `vc_types`.

use vc_store::{ContainerRecord, SandboxDir, SandboxRecord, UnixMillis};
use vc_types::{ContainerId, ContainerState, EndReason, ExitStatus, ProcessIdentity, SandboxState};

use crate::error::{Error, Result};
use crate::runtime::blocking;

/// One run of a container: what has its name later is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    machine: Option<ProcessIdentity>,
    created: UnixMillis,
    number: u64,
}

impl Run {
    /// The one that a state knows.
    pub(super) fn of(record: &SandboxRecord, container: &ContainerId) -> Option<Self> {
        record.containers.get(container).map(|entry| Self {
            machine: record.vmm_process.clone(),
            created: entry.created,
            number: entry.number,
        })
    }
}

/// A container's process was started, and with the first one its sandbox runs. It may have ended
/// since, and somebody has seen that already.
pub(super) async fn started(directory: &SandboxDir, container: &ContainerId) -> Result<()> {
    change(directory, container, |record, id| {
        if record.state == SandboxState::Ready {
            record.state = record.state.transition(SandboxState::Running)?;
        }
        let entry = entry(record, id)?;
        if !has_run(entry) {
            entry.state = entry.state.start()?;
        }
        entry.started = Some(UnixMillis::now());
        Ok(())
    })
    .await
}

/// Whether a container's process ran and has ended. One whose start was refused never ran.
pub(super) fn has_run(entry: &ContainerRecord) -> bool {
    let seen = matches!(
        entry.exit,
        Some(ExitStatus::Code(_) | ExitStatus::Signal { .. })
    );
    entry.state == ContainerState::Stopped && seen && entry.start_refused.is_none()
}

/// A container was paused, or goes on.
pub(super) async fn container(
    directory: &SandboxDir,
    container: &ContainerId,
    state: ContainerState,
) -> Result<()> {
    change(directory, container, move |record, id| {
        let entry = entry(record, id)?;
        entry.state = entry.state.transition(state)?;
        Ok(())
    })
    .await
}

/// A container's process has ended, or was `refused` its start. Whoever sees it says so; the first
/// one counts.
pub(super) async fn ended(
    directory: &SandboxDir,
    container: &ContainerId,
    exit: ExitStatus,
    refused: Option<String>,
) -> Result<()> {
    change(directory, container, move |record, id| {
        container_ended(record, id, exit, refused)
    })
    .await
}

/// As [`ended`], for those who may come late: nothing where it is another run's by now.
pub(super) async fn run_ended(
    directory: &SandboxDir,
    container: &ContainerId,
    run: Run,
    exit: ExitStatus,
    refused: Option<String>,
) -> Result<()> {
    change(directory, container, move |record, id| {
        match Run::of(record, id) == Some(run) {
            true => container_ended(record, id, exit, refused),
            false => Ok(()),
        }
    })
    .await
}

/// See [`ended`].
pub(super) fn container_ended(
    record: &mut SandboxRecord,
    container: &ContainerId,
    exit: ExitStatus,
    refused: Option<String>,
) -> Result<()> {
    // It may have been removed meanwhile.
    let Some(entry) = record.containers.get_mut(container) else {
        return Ok(());
    };
    if entry.state != ContainerState::Stopped {
        entry.start_refused = refused;
    }
    end(entry, Some(exit))
}

/// The sandbox's machine stands still, or goes on.
pub(super) async fn sandbox(directory: &SandboxDir, state: SandboxState) -> Result<()> {
    let directory = directory.clone();
    blocking(move || directory.try_update(|record| machine(record, state))).await
}

/// See [`sandbox`]. A sandbox that has lost its machine meanwhile has none to go on.
fn machine(record: &mut SandboxRecord, state: SandboxState) -> Result<()> {
    if record.state == SandboxState::Stopped {
        return Err(Error::NotRunning {
            sandbox: record.id().clone(),
        });
    }
    record.state = record.state.transition(state)?;
    Ok(())
}

/// The sandbox has no machine any more. What ran in it is lost, unless its end was seen. The first
/// reason that is known counts.
pub(super) fn stop(record: &mut SandboxRecord, reason: EndReason) -> Result<()> {
    if record.state != SandboxState::Stopped {
        record.state = record.state.transition(SandboxState::Stopped)?;
    }
    record.keep = true;
    record.keeper = None;
    record.vmm_process = None;
    record.processes.clear();
    let reason = record.end_reason.get_or_insert(reason).clone();
    for entry in record.containers.values_mut() {
        let ran = entry.state != ContainerState::Ready;
        let lost = ran.then(|| ExitStatus::Lost {
            reason: reason.clone(),
        });
        end(entry, lost)?;
    }
    Ok(())
}

fn end(entry: &mut ContainerRecord, exit: Option<ExitStatus>) -> Result<()> {
    if entry.state == ContainerState::Stopped {
        return Ok(());
    }
    entry.state = entry.state.transition(ContainerState::Stopped)?;
    entry.exit = exit;
    entry.ended = Some(UnixMillis::now());
    Ok(())
}

fn entry<'a>(
    record: &'a mut SandboxRecord,
    container: &ContainerId,
) -> Result<&'a mut ContainerRecord> {
    let sandbox = record.id().clone();
    record
        .containers
        .get_mut(container)
        .ok_or_else(|| Error::NoContainer {
            sandbox,
            container: container.clone(),
        })
}

async fn change(
    directory: &SandboxDir,
    container: &ContainerId,
    change: impl FnOnce(&mut SandboxRecord, &ContainerId) -> Result<()> + Send + 'static,
) -> Result<()> {
    let (directory, container) = (directory.clone(), container.clone());
    blocking(move || directory.try_update(|record| change(record, &container))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_has_ended_does_not_go_on() {
        let mut record = SandboxRecord::new("web".parse().unwrap()).unwrap();
        record.state = SandboxState::Paused;
        machine(&mut record, SandboxState::Running).unwrap();
        assert_eq!(record.state, SandboxState::Running);
        stop(&mut record, EndReason::Requested).unwrap();
        let late = machine(&mut record, SandboxState::Running).unwrap_err();
        assert!(matches!(late, Error::NotRunning { .. }), "{late}");
        assert_eq!(record.state, SandboxState::Stopped);
    }

    #[test]
    fn what_has_its_name_later_is_another_run() {
        let mut record = SandboxRecord::new("web".parse().unwrap()).unwrap();
        let c1: ContainerId = "c1".parse().unwrap();
        assert_eq!(Run::of(&record, &c1), None);
        let entry = ContainerRecord::new(vec!["true".into()]);
        record.containers.insert(c1.clone(), entry);
        record.vmm_process = Some(ProcessIdentity::current().unwrap());
        let run = Run::of(&record, &c1);
        record.containers.get_mut(&c1).unwrap().started = Some(UnixMillis::now());
        assert_eq!(Run::of(&record, &c1), run);
        record.containers.get_mut(&c1).unwrap().number += 1;
        assert_ne!(Run::of(&record, &c1), run);
        record.containers.get_mut(&c1).unwrap().number -= 1;
        record.vmm_process = None;
        assert_ne!(Run::of(&record, &c1), run);
    }

    #[test]
    fn a_container_whose_start_was_refused_has_not_run() {
        let mut entry = ContainerRecord::new(vec!["true".into()]);
        end(&mut entry, Some(ExitStatus::Code(126))).unwrap();
        assert!(has_run(&entry));
        entry.start_refused = Some("hook startContainer failed".into());
        assert!(!has_run(&entry));
    }
}
