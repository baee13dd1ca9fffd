//! Cgroups, namespaces, limits, signals and the working directory.

use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::fs::Mode;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Resource, Rlimit, chdir, getrlimit, setrlimit, umask};

use super::{AtStep, StepResult};
use crate::error::Step;
use crate::spec::{LaunchSpec, ResourceLimit};
use crate::sys;

/// Joins each control group by its `cgroup.procs`; 0 means the process that writes.
pub(super) fn join_cgroups(cgroups: &[OwnedFd]) -> StepResult<()> {
    for procs in cgroups {
        rustix::io::write(procs, b"0").at(Step::Cgroup, || "its cgroup.procs".to_owned())?;
    }
    Ok(())
}

pub(super) fn new_namespaces(spec: &LaunchSpec) -> StepResult<()> {
    let wanted = [
        (spec.needs_mount_namespace(), CloneFlags::CLONE_NEWNS),
        (spec.namespaces.net, CloneFlags::CLONE_NEWNET),
        (spec.namespaces.ipc, CloneFlags::CLONE_NEWIPC),
        (spec.namespaces.uts, CloneFlags::CLONE_NEWUTS),
    ];
    let flags: CloneFlags = wanted
        .iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, flag)| *flag)
        .collect();
    if flags.is_empty() {
        return Ok(());
    }
    unshare(flags).at(Step::Namespaces, || format!("{flags:?}"))?;
    if spec.needs_mount_namespace() {
        // Nothing that is mounted from now on reaches the host, and nothing comes from there.
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .at(Step::Namespaces, || "private mounts".to_owned())?;
    }
    Ok(())
}

pub(super) fn limit_resources(limits: &[ResourceLimit]) -> StepResult<()> {
    for limit in limits {
        let (resource, wanted) = match *limit {
            ResourceLimit::OpenFiles { up_to } => (Resource::Nofile, up_to),
            ResourceLimit::CoreBytes(bytes) => (Resource::Core, bytes),
            ResourceLimit::FileBytes(bytes) => (Resource::Fsize, bytes),
            ResourceLimit::LockedBytes(bytes) => (Resource::Memlock, bytes),
        };
        let both = |value| Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        let set = match (setrlimit(resource, both(wanted)), limit) {
            (Err(rustix::io::Errno::PERM), ResourceLimit::OpenFiles { .. }) => {
                let hard = getrlimit(resource).maximum.unwrap_or(wanted);
                setrlimit(resource, both(wanted.min(hard)))
            }
            (other, _) => other,
        };
        set.at(Step::Limits, || format!("{limit:?}"))?;
    }
    Ok(())
}

/// A program expects the defaults; the runtime of this one has ignored SIGPIPE, and whoever
/// started it may have ignored or blocked others.
pub(super) fn default_signals() -> StepResult<()> {
    sys::default_signals();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .at(Step::Signals, || "the mask".to_owned())
}

pub(super) fn enter_directory(spec: &LaunchSpec) -> StepResult<()> {
    umask(Mode::from_raw_mode(spec.umask));
    chdir(spec.cwd.as_str()).at(Step::WorkingDirectory, || spec.cwd.clone())
}
