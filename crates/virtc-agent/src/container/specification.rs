//! Makes the host's specification one that the container library can use in this guest.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxCapabilities, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxSeccomp, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};

/// Open files that a container's processes may have when its specification does not say: many
/// for those that ask for more than the soft limit, which stays small for those that walk through
/// all of them.
pub(crate) const CONTAINER_FILES_MAX: u64 = 524_288;
const CONTAINER_FILES: u64 = 1024;

/// What is assumed when the host does not name a version.
const OCI_VERSION: &str = "1.2.0";

/// Prepares the specification of a container that comes with a filter of system calls or does not, and
/// gives the one that was in it: the agent, not the container library, brings it to the processes.
pub(super) fn prepare_spec(
    spec: &mut Spec,
    cgroup: &Cgroup,
    has_filter: bool,
) -> Result<Option<LinuxSeccomp>> {
    if spec.version().is_empty() {
        spec.set_version(OCI_VERSION.to_owned());
    }
    let root = spec
        .root()
        .as_ref()
        .map(|root| root.path().clone())
        .unwrap_or_default();
    if !root.is_absolute() {
        return Err(Error::Invalid {
            field: "root path",
            value: root.display().to_string(),
            reason: "is not an absolute path of the guest",
        });
    }
    let linux = spec.linux_mut().as_mut().ok_or_else(|| missing("linux"))?;
    let seccomp = linux.seccomp().clone();
    linux.set_seccomp(None);
    if has_filter && seccomp.is_some() {
        return Err(Error::Invalid {
            field: "linux.seccomp",
            value: "words".into(),
            reason: "come with a filter that is made already",
        });
    }
    linux.set_cgroups_path(Some(cgroup.relative().to_owned()));
    // The guest's kernel has no labels.
    linux.set_mount_label(None);
    let process = spec
        .process_mut()
        .as_mut()
        .ok_or_else(|| missing("process"))?;
    prepare_process(process, has_filter || seccomp.is_some())?;
    Ok(seccomp)
}

/// Lets the container join a pid namespace instead of getting its own.
pub(super) fn join_pid_namespace(spec: &mut Spec, path: PathBuf) -> Result<()> {
    let joined = LinuxNamespaceBuilder::default()
        .typ(LinuxNamespaceType::Pid)
        .path(path)
        .build()
        .map_err(|error| Error::Invalid {
            field: "linux.namespaces",
            value: error.to_string(),
            reason: "cannot be made",
        })?;
    let linux = spec.linux_mut().as_mut().ok_or_else(|| missing("linux"))?;
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Pid);
    namespaces.push(joined);
    linux.set_namespaces(Some(namespaces));
    Ok(())
}

/// Prepares a process, a container's first one or an exec, that gets a filter of system calls or
/// does not.
pub(super) fn prepare_process(process: &mut Process, filtered: bool) -> Result<()> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(missing("process.args"));
    }
    if !process.cwd().is_absolute() {
        return Err(Error::Invalid {
            field: "working directory",
            value: process.cwd().display().to_string(),
            reason: "is not an absolute path",
        });
    }
    // Labels and profiles are of the host's kernel; the VM is what confines the container.
    process.set_apparmor_profile(None).set_selinux_label(None);
    if process.capabilities().is_none() {
        // None named means none, as for other runtimes.
        process.set_capabilities(Some(no_capabilities()));
    }
    if filtered && process.no_new_privileges() != Some(true) {
        keep_filter_capability(process);
    }
    let mut limits = process.rlimits().clone().unwrap_or_default();
    if !limits
        .iter()
        .any(|limit| limit.typ() == PosixRlimitType::RlimitNofile)
    {
        limits.push(files_limit()?);
    }
    process.set_rlimits(Some(limits));
    Ok(())
}

/// Prepares an exec in a container whose processes get a filter of system calls or do not.
pub(super) fn prepare_exec(process: &mut Process, filtered: bool) -> Result<()> {
    if process.cwd() == Path::new("") {
        process.set_cwd("/".into());
    }
    prepare_process(process, filtered)
}

/// A process of ours that copies: root, who can read and write every file of the container, and
/// nothing else.
pub(super) fn copying_process() -> Process {
    use oci_spec::runtime::Capability::{Chown, DacOverride, Fowner, Fsetid};
    let needed = Some([Chown, DacOverride, Fowner, Fsetid].into());
    let mut capabilities = no_capabilities();
    capabilities
        .set_bounding(needed.clone())
        .set_effective(needed.clone())
        .set_permitted(needed);
    let mut process = Process::default();
    process
        .set_args(Some(vec!["virtc-copy".to_owned()]))
        .set_env(None)
        .set_cwd("/".into())
        .set_terminal(Some(false))
        .set_capabilities(Some(capabilities))
        // So that loading the filter takes no capability.
        .set_no_new_privileges(Some(true))
        .set_rlimits(None);
    process
}

fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    let empty = Some(oci_spec::runtime::Capabilities::default());
    none.set_bounding(empty.clone())
        .set_effective(empty.clone())
        .set_permitted(empty.clone())
        .set_inheritable(empty.clone())
        .set_ambient(empty);
    none
}

/// The filter is loaded after the capabilities were dropped. Without "no new privileges" that
/// takes one, which execve then takes away again: it is not in the bounding set.
fn keep_filter_capability(process: &mut Process) {
    use oci_spec::runtime::Capability::SysAdmin;
    let mut capabilities = process
        .capabilities()
        .clone()
        .unwrap_or_else(no_capabilities);
    let with = |set: &Option<oci_spec::runtime::Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.insert(SysAdmin);
        Some(set)
    };
    let (effective, permitted) = (
        with(capabilities.effective()),
        with(capabilities.permitted()),
    );
    capabilities
        .set_effective(effective)
        .set_permitted(permitted);
    process.set_capabilities(Some(capabilities));
}

fn files_limit() -> Result<PosixRlimit> {
    PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(CONTAINER_FILES)
        .hard(CONTAINER_FILES_MAX)
        .build()
        .map_err(|error| Error::Invalid {
            field: "process.rlimits",
            value: error.to_string(),
            reason: "cannot be made",
        })
}

fn missing(field: &'static str) -> Error {
    Error::Invalid {
        field,
        value: String::new(),
        reason: "is missing in the specification",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(mut spec: Spec) -> Result<Spec> {
        let cgroup = Cgroup::of_container("c1", None)?;
        prepare_spec(&mut spec, &cgroup, false)?;
        Ok(spec)
    }

    fn spec() -> Spec {
        let mut spec = Spec::default();
        spec.root_mut()
            .as_mut()
            .unwrap()
            .set_path("/run/virtc/containers/c1/rootfs".into());
        spec
    }

    #[test]
    fn what_the_guest_does_not_have_is_taken_out() {
        let mut given = spec();
        let process = given.process_mut().as_mut().unwrap();
        process
            .set_apparmor_profile(Some("docker-default".into()))
            .set_selinux_label(Some("label".into()))
            .set_no_new_privileges(Some(false))
            .set_rlimits(None);
        given
            .linux_mut()
            .as_mut()
            .unwrap()
            .set_mount_label(Some("label".into()));
        let spec = prepared(given).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.apparmor_profile(), &None);
        assert_eq!(process.selinux_label(), &None);
        assert_eq!(
            process.rlimits().as_ref().unwrap()[0].hard(),
            CONTAINER_FILES_MAX
        );
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.mount_label(), &None);
        assert_eq!(
            linux.cgroups_path().as_deref(),
            Some(Path::new("/virtc/c1"))
        );
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        assert!(prepared(Spec::default()).is_err());
        let mut no_args = spec();
        no_args.process_mut().as_mut().unwrap().set_args(None);
        assert!(
            prepared(no_args)
                .unwrap_err()
                .to_string()
                .contains("process.args")
        );
        let mut no_linux = spec();
        no_linux.set_linux(None);
        assert!(prepared(no_linux).is_err());
    }

    #[test]
    fn the_filter_is_taken_out_of_the_specification() {
        let mut container = spec();
        container
            .linux_mut()
            .as_mut()
            .unwrap()
            .set_seccomp(Some(LinuxSeccomp::default()));
        let cgroup = Cgroup::of_container("c1", None).unwrap();
        // It is described, or made already.
        assert!(prepare_spec(&mut container.clone(), &cgroup, true).is_err());
        let seccomp = prepare_spec(&mut container, &cgroup, false).unwrap();
        assert_eq!(seccomp, Some(LinuxSeccomp::default()));
        assert_eq!(container.linux().as_ref().unwrap().seccomp(), &None);
    }

    #[test]
    fn a_process_can_load_its_filter_and_no_program_keeps_the_capability() {
        use oci_spec::runtime::Capability;
        let mut process = Process::default();
        process.set_no_new_privileges(Some(false));
        prepare_exec(&mut process, true).unwrap();
        let capabilities = process.capabilities().as_ref().unwrap();
        assert!(
            capabilities
                .permitted()
                .as_ref()
                .unwrap()
                .contains(&Capability::SysAdmin)
        );
        assert!(
            !capabilities
                .bounding()
                .as_ref()
                .unwrap()
                .contains(&Capability::SysAdmin)
        );
    }
}
