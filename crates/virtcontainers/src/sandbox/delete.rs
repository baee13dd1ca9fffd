//! Removing a sandbox by its name, whatever has become of it.

use vc_store::{SandboxRecord, Verb, WhenBusy};
use vc_types::{ProcessIdentity, SandboxId};

use super::machine::kill;
use crate::error::{Error, Result};
use crate::runtime::Shared;

/// Removes the sandbox `id`; with `force`, a running one too.
///
/// Its processes are found by what its state says of them, and nothing of it is believed that the
/// process table does not confirm: pid, start time and boot.
pub(crate) fn delete(runtime: &Shared, id: &SandboxId, force: bool) -> Result<()> {
    let directory = runtime.store.get(id)?;
    let record = match directory.read() {
        Ok(record) => Some(record),
        // A state that cannot be read names no process. Its directory goes all the same.
        Err(error @ vc_store::Error::Broken { .. }) if force => {
            tracing::warn!(sandbox = %id, %error, "removed without its state");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let Some(record) = record else {
        runtime.store.remove(id)?;
        return Ok(());
    };
    let lives =
        |process: &Option<ProcessIdentity>| process.as_ref().is_some_and(ProcessIdentity::is_alive);
    if !force && (lives(&record.keeper) || lives(&record.vmm_process)) {
        return Err(Error::Running {
            sandbox: id.clone(),
        });
    }
    let guard = match force {
        true => directory.take_over(Verb::Delete),
        false => directory.begin_operation(Verb::Delete, WhenBusy::Refuse),
    };
    let guard = match guard {
        Ok(guard) => guard,
        // Its owner rolled back and removed it.
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let left = end_processes(&guard.sandbox().read()?);
    runtime.store.remove_by(guard)?;
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::Left {
        sandbox: id.clone(),
        left: left.join(", "),
    })
}

/// Kills everything of a sandbox, and says what could not be. The keeper goes last, or it would
/// take what happens to its machine for an accident.
pub(super) fn end_processes(record: &SandboxRecord) -> Vec<String> {
    let own = ProcessIdentity::current().ok();
    let devices = record.processes.iter().map(|process| &process.identity);
    let all = record
        .keeper
        .iter()
        .chain(record.vmm_process.iter())
        .chain(devices);
    all.filter(|process| own.as_ref() != Some(*process))
        .filter_map(|process| {
            let error = kill(process).err()?;
            Some(format!("process {process}: {error}"))
        })
        .collect()
}
