//! Removing a sandbox by its name, whatever has become of it.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vc_store::{ContainerView, OperationGuard, SandboxRecord, Verb, View, WhenBusy};
use vc_types::{ContainerState, ProcessIdentity, SandboxId};

use super::machine::kill;
use super::{cgroups, network};
use crate::error::{Error, Result};
use crate::fault;
use crate::runtime::Shared;

/// How long a keeper may take to end by itself once its machine is gone.
const KEEPER_END_LIMIT: Duration = Duration::from_secs(2);

/// How long a process may take to end that was killed. One that waits for a dead disk does not.
///
/// On a busy host, the kernel takes a tenth of a second for each tap that a VMM leaves.
const KILLED_END_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at a process that is to end, where the system does not tell of it.
const END_RETRY: Duration = Duration::from_millis(10);

/// Removes the sandbox `id`; with `force`, a running one too. Says whether it was this call that removed
/// it: somebody else may have meanwhile.
///
/// Its processes are found by what its state says of them, and nothing of it is believed that the
/// process table does not confirm: pid, start time and boot.
pub(crate) fn delete(runtime: &Shared, id: &SandboxId, force: bool) -> Result<bool> {
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
        cgroups::remove_by_name(runtime.store.root(), &directory)?;
        return Ok(runtime.store.remove_dir(&directory)?);
    };
    // One of which nothing is known may live.
    let may_live = |process: &Option<ProcessIdentity>| {
        process.as_ref().is_some_and(|process| !process.has_ended())
    };
    // A VMM whose keeper has ended is about to end too.
    let kept = match &record.keeper {
        None => may_live(&record.vmm_process),
        keeper => may_live(keeper),
    };
    if !force && kept {
        return Err(Error::Running {
            sandbox: id.clone(),
        });
    }
    let ended = |process: &ContainerView| process.state == ContainerState::Stopped;
    let containers = View::of(&record).containers;
    if kept
        && !containers.is_empty()
        && containers.values().all(ended)
        && let Some(keeper) = &record.keeper
    {
        // It puts away what has ended: output that somebody reads, and what the guest writes back.
        has_ended_by(keeper, Instant::now() + KEEPER_END_LIMIT);
    }
    let guard = match force {
        true => directory.take_over(Verb::Delete),
        false => directory.begin_operation(Verb::Delete, WhenBusy::Refuse),
    };
    let removed = match guard
        .map_err(Error::from)
        .and_then(|guard| end(runtime, guard))
    {
        // Its owner rolled back and removed it, or its keeper did as its last act.
        Err(error) if error.is_not_found() => false,
        Err(error) => return Err(error),
        Ok(left) if left.is_empty() => true,
        Ok(left) => {
            return Err(Error::Left {
                sandbox: id.clone(),
                left: left.join(", "),
            });
        }
    };
    fault::point("delete.state-removed")?;
    Ok(removed)
}

/// Ends everything of a sandbox and removes it, and says what stays. Its state stays then, so that
/// whoever tries again knows what to end.
pub(super) fn end(runtime: &Shared, operation: OperationGuard) -> Result<Vec<String>> {
    fault::point("delete.begun")?;
    let record = operation.sandbox().read()?;
    let mut left = end_processes(&record);
    fault::point("delete.processes-ended")?;
    if left.is_empty() {
        left = network::undo(&record);
        fault::point("delete.network-undone")?;
        left.extend(cgroups::remove_all(&record));
        fault::point("delete.cgroups-removed")?;
    }
    runtime.driver.surroundings().end(operation.sandbox().id());
    if left.is_empty() {
        runtime.store.remove_by(operation)?;
    }
    Ok(left)
}

/// Ends every process of a sandbox, and says what could not be.
///
/// The keeper goes last and may go by itself: it sees that its machine is gone, says so, and gives
/// back the terminal that it has.
fn end_processes(record: &SandboxRecord) -> Vec<String> {
    let own = ProcessIdentity::current().ok();
    let foreign = |process: &&ProcessIdentity| own.as_ref() != Some(*process);
    let mut left = end_machine(record);
    if let Some(keeper) = record.keeper.as_ref().filter(foreign) {
        has_ended_by(keeper, Instant::now() + KEEPER_END_LIMIT);
        left.extend(kill_or_say(keeper));
    }
    // Those that stand for containers which joined the sandbox of another see its end too.
    let stand_ins = record
        .containers
        .values()
        .filter_map(|c| c.stand_in.as_ref());
    let end = Instant::now() + KEEPER_END_LIMIT;
    for stand_in in stand_ins.filter(foreign) {
        has_ended_by(stand_in, end);
        left.extend(kill_or_say(stand_in));
    }
    left
}

/// Kills the VMM and the device processes of a sandbox, and says what does not end.
pub(super) fn end_machine(record: &SandboxRecord) -> Vec<String> {
    let own = ProcessIdentity::current().ok();
    let foreign = |process: &&ProcessIdentity| own.as_ref() != Some(*process);
    let devices = record.processes.iter().map(|process| &process.identity);
    let machine = record.vmm_process.iter().chain(devices).filter(foreign);
    let machine: Vec<&ProcessIdentity> = machine.collect();
    let mut left: Vec<String> = machine.iter().filter_map(|p| kill_or_say(p)).collect();
    let end = Instant::now() + KILLED_END_LIMIT;
    for process in machine {
        if !has_ended_by(process, end) {
            left.push(format!("process {process}: it does not end"));
        }
    }
    left
}

/// Waits for the end of a process that is not our child.
pub(super) fn has_ended_by(process: &ProcessIdentity, end: Instant) -> bool {
    // Where the system gives no descriptor, it is looked at again and again.
    let pidfd = process.open().ok().flatten();
    while process.is_alive() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        match &pidfd {
            Some(pidfd) => wait_for(pidfd, left),
            None => std::thread::sleep(END_RETRY),
        }
    }
    true
}

/// Waits until a process has ended, or for so long; a signal may end the wait before.
fn wait_for(pidfd: &OwnedFd, limit: Duration) {
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    let waited = Timespec::try_from(limit).map(|limit| poll(&mut polled, Some(&limit)));
    // An end that is not reaped yet is seen by the caller; a pidfd that says nothing is no reason
    // to ask again at once.
    if !matches!(waited, Ok(Ok(_) | Err(Errno::INTR))) {
        std::thread::sleep(END_RETRY);
    }
}

fn kill_or_say(process: &ProcessIdentity) -> Option<String> {
    let error = kill(process).err()?;
    Some(format!("process {process}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A keeper, and the record of a sandbox whose VMM it has.
    fn keeper(script: &str) -> (Child, SandboxRecord) {
        let mut child = Command::new("sh")
            .args(["-c", &format!("sleep 60 & echo $!; {script}")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let mut record = SandboxRecord::new("a".parse().unwrap()).unwrap();
        let identity = |pid| Some(ProcessIdentity::of(pid).unwrap());
        record.vmm_process = identity(line.trim().parse().unwrap());
        record.keeper = identity(child.id().try_into().unwrap());
        (child, record)
    }

    #[test]
    fn a_keeper_ends_by_itself_once_its_machine_is_gone() {
        let (mut child, record) = keeper("wait; exit 7");
        let before = Instant::now();
        assert!(end_processes(&record).is_empty());
        assert!(before.elapsed() < KEEPER_END_LIMIT);
        assert_eq!(child.wait().unwrap().code(), Some(7));
        assert!(record.vmm_process.unwrap().has_ended());
    }

    #[test]
    fn a_keeper_that_stays_is_killed() {
        let (mut child, record) = keeper("exec sleep 60");
        let before = Instant::now();
        assert!(end_processes(&record).is_empty());
        assert!(before.elapsed() >= KEEPER_END_LIMIT);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
