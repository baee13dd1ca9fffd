//! The specification of a container that asks for nothing special.
//!
//! The host makes those of its users from it, and the guest's agent rehearses one in a template: what
//! both have alike need not be made again.

mod seccomp;

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxSeccomp, Mount, MountBuilder, PosixRlimitBuilder, PosixRlimitType, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder, UserBuilder, get_default_maskedpaths,
    get_default_readonly_paths,
};

/// Open files: what a login session of a current distribution has.
const OPEN_FILES_SOFT: u64 = 1024;
const OPEN_FILES_HARD: u64 = 524_288;

/// The capabilities of a command when nothing is added or dropped: podman's list.
pub const DEFAULT_CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What a specification is made from; everything else takes its default.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// Its user id, group id and further groups.
    pub user: (u32, u32, Vec<u32>),
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Its capabilities.
    pub capabilities: Vec<Capability>,
    /// Whether its root cannot be written.
    pub read_only: bool,
    /// Its host name; the sandbox's where there is none.
    pub hostname: Option<String>,
}

/// The filter of system calls of a container that has the [`DEFAULT_CAPABILITIES`].
///
/// # Errors
///
/// As [`default_spec`].
pub fn usual_seccomp() -> Result<LinuxSeccomp, OciSpecError> {
    seccomp::default_profile(&DEFAULT_CAPABILITIES.map(str::to_owned))
}

/// The specification of a container with this process: the namespaces, mounts, masked paths and
/// system calls that container engines use.
///
/// It has the guest's network: a sandbox is one host to its containers.
///
/// # Errors
///
/// When a value cannot stand in a specification; not with the types above.
///
/// # Examples
///
/// ```
/// use default_spec::{ProcessConfig, default_spec};
///
/// let spec = default_spec(ProcessConfig {
///     args: vec!["true".into()],
///     env: vec![],
///     cwd: "/".into(),
///     user: (0, 0, vec![]),
///     terminal: false,
///     capabilities: vec![],
///     read_only: true,
///     hostname: None,
/// })?;
/// assert_eq!(spec.root().as_ref().and_then(|root| root.readonly()), Some(true));
/// # Ok::<(), oci_spec::OciSpecError>(())
/// ```
pub fn default_spec(process: ProcessConfig) -> Result<Spec, OciSpecError> {
    let seccomp = seccomp::default_profile(
        &process
            .capabilities
            .iter()
            .map(|c| format!("CAP_{c}"))
            .collect::<Vec<_>>(),
    )?;
    let namespaces = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Cgroup,
    ]
    .into_iter()
    .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
    .collect::<Result<Vec<_>, _>>()?;
    let (uid, gid, groups) = process.user;
    let capabilities: std::collections::HashSet<_> = process.capabilities.into_iter().collect();
    // Only root's programs have them; another user's would have to be ambient.
    let effective = if uid == 0 {
        capabilities.clone()
    } else {
        Default::default()
    };
    let mut spec = SpecBuilder::default()
        .version("1.1.0")
        .process(
            ProcessBuilder::default()
                .terminal(process.terminal)
                .user(
                    UserBuilder::default()
                        .uid(uid)
                        .gid(gid)
                        .additional_gids(groups)
                        .build()?,
                )
                .args(process.args)
                .env(process.env)
                .cwd(process.cwd)
                .no_new_privileges(false)
                .capabilities(
                    LinuxCapabilitiesBuilder::default()
                        .bounding(capabilities)
                        .effective(effective.clone())
                        .permitted(effective)
                        .inheritable(std::collections::HashSet::new())
                        .ambient(std::collections::HashSet::new())
                        .build()?,
                )
                .rlimits(vec![
                    PosixRlimitBuilder::default()
                        .typ(PosixRlimitType::RlimitNofile)
                        .soft(OPEN_FILES_SOFT)
                        .hard(OPEN_FILES_HARD)
                        .build()?,
                ])
                .build()?,
        )
        .root(
            RootBuilder::default()
                .path("rootfs")
                .readonly(process.read_only)
                .build()?,
        )
        .mounts(usual_mounts()?)
        .linux(
            LinuxBuilder::default()
                .namespaces(namespaces)
                .masked_paths(get_default_maskedpaths())
                .readonly_paths(get_default_readonly_paths())
                .seccomp(seccomp)
                .build()?,
        )
        .build()?;
    if let Some(hostname) = process.hostname {
        spec.set_hostname(Some(hostname));
    }
    Ok(spec)
}

fn usual_mounts() -> Result<Vec<Mount>, OciSpecError> {
    let mount = |destination: &str, kind: &str, source: &str, options: &str| {
        MountBuilder::default()
            .destination(Path::new(destination))
            .typ(kind)
            .source(source)
            .options(options.split(',').map(str::to_owned).collect::<Vec<_>>())
            .build()
    };
    Ok(vec![
        mount("/proc", "proc", "proc", "nosuid,noexec,nodev")?,
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            "nosuid,strictatime,mode=755,size=65536k",
        )?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
        )?,
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            "nosuid,noexec,nodev,mode=1777,size=65536k",
        )?,
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev")?,
        mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro")?,
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            "nosuid,noexec,nodev,relatime,ro",
        )?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(uid: u32) -> ProcessConfig {
        ProcessConfig {
            args: vec!["true".into()],
            env: vec![],
            cwd: "/".into(),
            user: (uid, uid, vec![]),
            terminal: false,
            capabilities: vec![Capability::Chown, Capability::Kill],
            read_only: false,
            hostname: None,
        }
    }

    #[test]
    fn only_root_has_effective_capabilities() {
        let effective = |uid| {
            let spec = default_spec(process(uid)).unwrap();
            let process = spec.process().clone().unwrap();
            process
                .capabilities()
                .clone()
                .unwrap()
                .effective()
                .clone()
                .unwrap()
                .len()
        };
        assert_eq!(effective(0), 2);
        assert_eq!(effective(1000), 0);
    }

    #[test]
    fn a_capability_is_spelt_as_the_profile_spells_it() {
        assert_eq!(format!("CAP_{}", Capability::SysAdmin), "CAP_SYS_ADMIN");
    }

    #[test]
    fn seccomp_is_on() {
        assert!(
            default_spec(process(0))
                .unwrap()
                .linux()
                .as_ref()
                .unwrap()
                .seccomp()
                .is_some()
        );
    }
}
