//! Reads a bundle's `config.json`, and refuses what the runtime specification has to be an error
//! and what nobody after this would see.

use std::fmt::Debug;
use std::path::Path;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, Linux, LinuxNamespaceType, LinuxSeccomp, LinuxSeccompAction, Spec,
};
use serde::Deserialize as _;
use serde_json::Value;
use syscall_filter::SyscallFilter;

type Result<T> = std::result::Result<T, OciSpecError>;

/// Reads and checks it.
///
/// # Errors
///
/// What cannot be read, and the key whose value is refused.
pub(super) fn read(path: &Path) -> Result<Spec> {
    let mut config: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    leave_out_unknown_capabilities(&mut config);
    let spec: Spec = serde_json::from_value(config)?;
    check(&spec)?;
    Ok(spec)
}

/// A capability that no kernel of ours has cannot be granted, which is no more than a warning.
fn leave_out_unknown_capabilities(config: &mut Value) {
    let sets = config
        .pointer_mut("/process/capabilities")
        .and_then(Value::as_object_mut);
    for (set, names) in sets.into_iter().flatten() {
        let Some(names) = names.as_array_mut() else {
            continue;
        };
        names.retain(|name| {
            // What is no text at all is an error of the whole.
            let known = !name.is_string() || Capability::deserialize(name).is_ok();
            if !known {
                tracing::warn!(%name, set, "an unknown capability is left out");
            }
            known
        });
    }
}

fn check(spec: &Spec) -> Result<()> {
    if !is_version(spec.version()) {
        return refuse(format!(
            "ociVersion {:?} is not of the form X.Y.Z",
            spec.version()
        ));
    }
    let mounts = spec.mounts().iter().flatten();
    for destination in mounts.map(|mount| mount.destination()) {
        if !destination.is_absolute() {
            return refuse(format!(
                "mounts.destination {} is not absolute",
                destination.display()
            ));
        }
    }
    if let Some(process) = spec.process() {
        let limits = process.rlimits().iter().flatten();
        unique("process.rlimits", limits.map(|limit| limit.typ()))?;
    }
    let Some(linux) = spec.linux() else {
        return Ok(());
    };
    let namespaces = linux.namespaces().iter().flatten();
    unique(
        "linux.namespaces",
        namespaces.map(|namespace| namespace.typ()),
    )?;
    if linux.intel_rdt().is_some() {
        return refuse("linux.intelRdt: a machine has no resctrl file system".into());
    }
    check_time_offsets(linux)?;
    linux.seccomp().as_ref().map_or(Ok(()), check_seccomp)
}

/// Offsets are set when a time namespace is made, and of no other one.
fn check_time_offsets(linux: &Linux) -> Result<()> {
    const KEY: &str = "linux.timeOffsets";
    let Some(offsets) = linux.time_offsets() else {
        return Ok(());
    };
    if let Some(clock) = offsets
        .keys()
        .find(|clock| !matches!(clock.as_str(), "monotonic" | "boottime"))
    {
        return refuse(format!(
            "{KEY}: {clock:?} is neither monotonic nor boottime"
        ));
    }
    let mut namespaces = linux.namespaces().iter().flatten();
    match namespaces.find(|namespace| namespace.typ() == LinuxNamespaceType::Time) {
        Some(namespace) if namespace.path().is_none() => Ok(()),
        Some(_) => refuse(format!("{KEY}: the time namespace is one that exists")),
        None => refuse(format!("{KEY}: linux.namespaces has no time namespace")),
    }
}

fn check_seccomp(seccomp: &LinuxSeccomp) -> Result<()> {
    let default = seccomp
        .default_errno_ret()
        .map(|_| seccomp.default_action());
    let rules = seccomp.syscalls().iter().flatten();
    let mut given = rules
        .clone()
        .filter_map(|rule| rule.errno_ret().map(|_| rule.action()))
        .chain(default);
    let takes_one = |action: &LinuxSeccompAction| {
        use LinuxSeccompAction::{ScmpActErrno, ScmpActTrace};
        matches!(action, ScmpActErrno | ScmpActTrace)
    };
    if let Some(action) = given.find(|action| !takes_one(action)) {
        return refuse(format!("linux.seccomp: {action} has no errno to return"));
    }
    if rules.clone().any(|rule| rule.names().is_empty()) {
        return refuse("linux.seccomp.syscalls: an entry names no system call".into());
    }
    // Before a machine comes up for it.
    SyscallFilter::check(seccomp)
        .map_err(|error| OciSpecError::Other(format!("linux.seccomp: {error}")))
}

/// Semantic Versioning, as far as a bundle's version can be wrong by mistake: three numbers, and
/// what a pre-release or a build adds.
fn is_version(text: &str) -> bool {
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    numbers.split('.').count() == 3 && numbers.split('.').all(is_number)
}

fn unique<T: PartialEq + Debug>(key: &str, kinds: impl Iterator<Item = T>) -> Result<()> {
    let mut seen = Vec::new();
    for kind in kinds {
        if seen.contains(&kind) {
            return refuse(format!("{key} has two entries of the type {kind:?}"));
        }
        seen.push(kind);
    }
    Ok(())
}

fn refuse<T>(what: String) -> Result<T> {
    Err(OciSpecError::Other(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_three_numbers() {
        for good in ["1.0.2", "1.0.2-dev", "1.2.0+build.7", "0.0.0"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "1", "1.0", "1.0.x", "v1.0.2", "1.0.2.3", "1..2"] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
