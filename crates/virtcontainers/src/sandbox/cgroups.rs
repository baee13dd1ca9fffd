//! The cgroups on the host: one of a sandbox's VMM and device processes, and one of each process
//! that stands for a container. They are in the state before they are made.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vc_cgroups::{Cgroup, CgroupPath, Hierarchies, Membership};
use vc_store::{ContainerRecord, Document, SandboxDir, SandboxRecord};
use vc_types::{ContainerId, ProcessIdentity};

use super::host_cgroup::HostCgroup;
use crate::container::saved;
use crate::error::{Error, Result};

/// Bytes of the state root's digest in a name: two roots with the same ids do not meet.
const ROOT_DIGEST_BYTES: usize = 4;

/// The cgroup of a stand-in, and where that was before.
#[derive(Debug, Serialize, Deserialize)]
struct Joined {
    cgroup: Cgroup,
    before: Membership,
}

/// The name of a container's cgroup where its bundle names none. No sandbox's ends so.
pub(crate) fn container_name(root: &Path, container: &ContainerId) -> String {
    format!("{container}_{}", root_tag(root))
}

/// Tells state roots apart whose sandboxes have the same names.
pub(super) fn root_tag(root: &Path) -> String {
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    let bytes = digest[..ROOT_DIGEST_BYTES].iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// Plans the cgroup of a sandbox, and notes it in its state. Nothing for one without.
pub(super) fn plan_sandbox(
    record: &mut SandboxRecord,
    host_cgroup: &HostCgroup,
    root: &Path,
) -> Result<()> {
    if let Some(path) = host_cgroup.path(root, record.id())? {
        let cgroup = Cgroup::plan(&Hierarchies::detect()?, &path)?;
        record.cgroup = Some(document(&cgroup)?);
    }
    Ok(())
}

/// Plans the cgroup of a container, and notes it in its state.
pub(super) fn plan_container(entry: &mut ContainerRecord, path: &CgroupPath) -> Result<()> {
    let hierarchies = Hierarchies::detect()?;
    let joined = Joined {
        cgroup: Cgroup::plan(&hierarchies, path)?,
        before: Membership::of_caller(&hierarchies),
    };
    entry.cgroup = Some(document(&joined)?);
    Ok(())
}

/// Makes the cgroup of a sandbox as its state has it. Nothing for one without.
pub(super) fn make_sandbox(record: &SandboxRecord) -> Result<Option<Cgroup>> {
    let cgroup = stored::<Cgroup>(record.cgroup.as_ref())?;
    Ok(cgroup.map(Cgroup::make).transpose()?)
}

/// Makes the cgroup of a sandbox, and moves processes into it that were made before; where it has
/// none, to where this process is. What they have used stays where they were.
pub(super) fn move_into_sandbox(
    record: &SandboxRecord,
    processes: &[ProcessIdentity],
) -> Result<()> {
    if let Some(cgroup) = make_sandbox(record)? {
        for process in processes {
            cgroup.add(process)?;
        }
        return Ok(());
    }
    let memberships = |pid: &str| std::fs::read(format!("/proc/{pid}/cgroup")).ok();
    let own = memberships("self");
    let elsewhere = |process: &&ProcessIdentity| memberships(&process.pid().to_string()) != own;
    let mut elsewhere = processes.iter().filter(elsewhere).peekable();
    if elsewhere.peek().is_none() {
        return Ok(());
    }
    let membership = Membership::of_caller(&Hierarchies::detect()?);
    for process in elsewhere {
        membership.restore(process)?;
    }
    Ok(())
}

/// Moves a process that this one has started to where this one was before it joined the cgroup of a
/// container. Nothing where it joined none.
pub(super) fn leave_containers(record: &SandboxRecord, process: &ProcessIdentity) -> Result<()> {
    let own = ProcessIdentity::current()?;
    for entry in record.containers.values() {
        if let Some(Joined { cgroup, before }) = stored(entry.cgroup.as_ref())?
            && cgroup.pids()?.contains(&own.pid())
        {
            before.restore(process)?;
        }
    }
    Ok(())
}

/// Makes the cgroup of a container as its state has it, and moves this process into it.
pub(super) fn join_container(entry: &ContainerRecord) -> Result<()> {
    if let Some(joined) = stored::<Joined>(entry.cgroup.as_ref())? {
        joined.cgroup.make()?.add(&ProcessIdentity::current()?)?;
    }
    Ok(())
}

/// Removes the cgroup of a container. What is left in it is killed, but for this process, which
/// goes back to where it was.
pub(super) fn remove_container(entry: &ContainerRecord) -> Result<()> {
    let Some(Joined { cgroup, before }) = stored(entry.cgroup.as_ref())? else {
        return Ok(());
    };
    if cgroup.is_ours() && cgroup.remove_unused()? {
        return Ok(());
    }
    let own = ProcessIdentity::current()?;
    if cgroup.pids()?.contains(&own.pid()) {
        before.restore(&own)?;
    }
    remove(&cgroup)
}

/// Removes all cgroups of a sandbox and its containers, and says what stays.
pub(super) fn remove_all(record: &SandboxRecord) -> Vec<String> {
    let containers = record.containers.values().map(remove_container);
    let sandbox = stored::<Cgroup>(record.cgroup.as_ref())
        .and_then(|cgroup| cgroup.as_ref().map_or(Ok(()), remove));
    containers
        .chain([sandbox])
        .filter_map(|removed| removed.err())
        .map(|error| error.to_string())
        .collect()
}

/// Removes what can be found of a sandbox whose state is lost: its cgroup, with everything in it.
pub(super) fn remove_by_name(root: &Path, directory: &SandboxDir) -> Result<()> {
    // What it was asked to be says whether it is in a pod's, which its name does not. Where that is
    // lost too, the usual one is all that can be known.
    let asked = saved::load_sandbox(directory.path());
    let host_cgroup = asked.map_or(HostCgroup::Own, |config| config.cgroup);
    let Some(path) = host_cgroup.path(root, directory.id())? else {
        return Ok(());
    };
    match Cgroup::adopt(&Hierarchies::detect()?, &path)? {
        Some(cgroup) => remove(&cgroup),
        None => Ok(()),
    }
}

fn remove(cgroup: &Cgroup) -> Result<()> {
    if cgroup.is_ours() && !cgroup.remove_unused()? {
        cgroup.kill_all()?;
        cgroup.remove()?;
    }
    Ok(())
}

fn document(stored: &impl Serialize) -> Result<Document> {
    Document::of(stored).map_err(|error| unreadable(error, "write"))
}

fn stored<T: DeserializeOwned>(document: Option<&Document>) -> Result<Option<T>> {
    let read = document.map(Document::read).transpose();
    read.map_err(|error| unreadable(error, "read"))
}

fn unreadable(error: serde_json::Error, verb: &str) -> Error {
    Error::System {
        attempt: format!("{verb} a cgroup in the state"),
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_roots_have_two_cgroups_for_one_name() {
        let id = "pod".parse().unwrap();
        let first = container_name(Path::new("/run/a"), &id);
        assert_ne!(first, container_name(Path::new("/run/b"), &id));
    }
}
