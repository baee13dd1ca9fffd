//! What is to be started, as plain data that can be printed, compared and sent.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::mount_tree::{MountTree, TreeNode};

/// Descriptors that one launch passes: what one message of a Unix socket carries is 253.
pub(crate) const DESCRIPTORS_MAX: usize = 200;

/// Numbers that a descriptor may get are below this; above it the step keeps its own.
pub(crate) const DESCRIPTOR_NUMBER_MAX: i32 = 256;

/// Bytes of a spec on the wire. A tree of a hundred mounts needs some ten thousand, and a
/// socket's buffer holds it, so that sending never waits.
pub(crate) const SPEC_BYTES_MAX: usize = 96 << 10;

/// What to start, and with which rights.
///
/// A new spec has no namespace, no right beyond the caller's, and `no_new_privs`.
///
/// ```
/// use vc_launch::{LaunchSpec, Program, User};
///
/// let mut spec = LaunchSpec::new("a VMM", Program::Path("/usr/bin/qemu-system-x86_64".into()));
/// spec.args = vec!["-version".into()];
/// spec.user = Some(User::NOBODY);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LaunchSpec {
    /// What messages call the process.
    pub name: String,
    /// What is executed.
    pub program: Program,
    /// The first argument, by which tools name the process. The program's path when not set.
    pub arg0: Option<String>,
    /// The arguments after the first.
    pub args: Vec<String>,
    /// The whole environment. Nothing is inherited.
    pub env: Vec<(String, String)>,
    /// The working directory, in the new root.
    pub cwd: String,
    /// The file mode creation mask.
    pub umask: u32,
    /// The user to become; the caller's when not set.
    pub user: Option<User>,
    /// The capabilities that are left, in all sets; the caller's when not set.
    pub capabilities: Option<Vec<Capability>>,
    /// Whether executing a file never adds rights.
    pub no_new_privs: bool,
    /// New namespaces. A mount tree brings a mount namespace by itself.
    pub namespaces: Namespaces,
    /// What the process sees as its root; the caller's root when not set.
    pub root: Option<MountTree>,
    /// Resource limits.
    pub limits: Vec<ResourceLimit>,
}

/// The program of a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// A path in the root that the process gets.
    Path(String),
    /// The descriptor passed as [`DescriptorUse::Program`]: it need not exist in the new root.
    /// A program that needs an interpreter or a loader finds it only in the new root, so this is
    /// for statically linked ones.
    Descriptor {
        /// What messages call it.
        path: String,
    },
}

impl Program {
    /// Its path, for messages and as the first argument.
    pub fn path(&self) -> &str {
        match self {
            Self::Path(path) | Self::Descriptor { path } => path,
        }
    }
}

/// A user and all its groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// All supplementary groups.
    pub groups: Vec<u32>,
}

impl User {
    /// The user who owns nothing.
    pub const NOBODY: Self = Self {
        uid: 65534,
        gid: 65534,
        groups: Vec::new(),
    };
}

/// A capability that a process of ours may keep. What none of them needs has no name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Capability {
    /// Giving files away.
    Chown,
    /// Reading, writing and searching whatever the mode says.
    DacOverride,
    /// Reading and searching whatever the mode says, and opening files by handle.
    DacReadSearch,
    /// What only the owner of a file may do.
    Fowner,
    /// Keeping set-id bits when a file is changed.
    Fsetid,
    /// Changing groups.
    Setgid,
    /// Changing users.
    Setuid,
    /// Giving up capabilities of the bounding set.
    Setpcap,
    /// Making device nodes.
    Mknod,
    /// Giving capabilities to files.
    Setfcap,
    /// Network devices and addresses of its network namespace.
    NetAdmin,
    /// Listening at ports that not everybody may take.
    NetBindService,
}

/// Which namespaces are new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Mounts.
    pub mount: bool,
    /// Network devices, addresses and abstract sockets.
    pub net: bool,
    /// System V and POSIX IPC.
    pub ipc: bool,
    /// Host name.
    pub uts: bool,
}

/// One resource limit, soft and hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ResourceLimit {
    /// Open descriptors: this many, or as many as the hard limit allows where it cannot be
    /// raised.
    OpenFiles {
        /// The number wanted.
        up_to: u64,
    },
    /// Bytes of a core dump.
    CoreBytes(u64),
    /// Bytes of one written file.
    FileBytes(u64),
    /// Bytes of memory that stays where it is.
    LockedBytes(u64),
}

/// What a passed descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DescriptorUse {
    /// The program finds it at this number (0 to 255). Standard input, output and error are
    /// `/dev/null` when nothing else is passed for them.
    Number(i32),
    /// Standard output and standard error, where no number is passed for them.
    Output,
    /// The program of [`Program::Descriptor`].
    Program,
    /// A `cgroup.procs` file of a control group to join. May be passed more than once.
    CgroupProcs,
    /// The source of a bind mount in the tree, see [`BindSource`](crate::BindSource).
    MountSource(u32),
}

/// A descriptor to pass, and what for. It is closed on this side when it was passed.
#[derive(Debug)]
pub struct PassedFd {
    /// What it is for.
    pub used_as: DescriptorUse,
    /// The descriptor.
    pub fd: OwnedFd,
}

impl PassedFd {
    /// The program finds `fd` at `number`.
    pub fn at(number: i32, fd: impl Into<OwnedFd>) -> Self {
        Self::new(DescriptorUse::Number(number), fd)
    }

    /// Standard output and error go to `fd`.
    pub fn output(fd: impl Into<OwnedFd>) -> Self {
        Self::new(DescriptorUse::Output, fd)
    }

    /// `fd` is for `used_as`.
    pub fn new(used_as: DescriptorUse, fd: impl Into<OwnedFd>) -> Self {
        Self {
            used_as,
            fd: fd.into(),
        }
    }
}

impl LaunchSpec {
    /// A spec of `program` with nothing else.
    pub fn new(name: impl Into<String>, program: Program) -> Self {
        Self {
            name: name.into(),
            program,
            arg0: None,
            args: Vec::new(),
            env: Vec::new(),
            cwd: "/".into(),
            umask: 0o077,
            user: None,
            capabilities: None,
            no_new_privs: true,
            namespaces: Namespaces::default(),
            root: None,
            limits: Vec::new(),
        }
    }

    /// Whether the process gets a mount namespace of its own.
    pub(crate) fn needs_mount_namespace(&self) -> bool {
        self.namespaces.mount || self.root.is_some()
    }

    /// Finds contradictions before anything is started.
    pub(crate) fn check(&self, passed: &[PassedFd]) -> Result<()> {
        let refuse = |reason: String| {
            Err(Error::Spec {
                name: self.name.clone(),
                reason,
            })
        };
        if passed.len() > DESCRIPTORS_MAX {
            return refuse(format!("more than {DESCRIPTORS_MAX} descriptors"));
        }
        for (index, one) in passed.iter().enumerate() {
            match one.used_as {
                DescriptorUse::Number(number) if !(0..DESCRIPTOR_NUMBER_MAX).contains(&number) => {
                    return refuse(format!("descriptor number {number} is not allowed"));
                }
                DescriptorUse::CgroupProcs => continue,
                _ => {}
            }
            if passed[..index].iter().any(|p| p.used_as == one.used_as) {
                return refuse(format!("two descriptors are {}", one.used_as));
            }
        }
        let has = |wanted| passed.iter().any(|p| p.used_as == wanted);
        let by_descriptor = matches!(self.program, Program::Descriptor { .. });
        if by_descriptor != has(DescriptorUse::Program) {
            return refuse("the program's descriptor and the spec do not agree".into());
        }
        let entries = self.root.iter().flat_map(|tree| &tree.entries);
        for entry in entries {
            entry
                .check()
                .or_else(|reason| refuse(format!("{:?} in the mount tree: {reason}", entry.at)))?;
            if let TreeNode::Bind { source, .. } = &entry.node
                && !has(DescriptorUse::MountSource(source.0))
            {
                return refuse(format!("the source of {:?} was not passed", entry.at));
            }
        }
        Ok(())
    }
}

impl fmt::Display for DescriptorUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "descriptor {number}"),
            Self::Output => f.write_str("the output"),
            Self::Program => f.write_str("the program"),
            Self::CgroupProcs => f.write_str("a cgroup.procs file"),
            Self::MountSource(index) => write!(f, "mount source {index}"),
        }
    }
}

/// The standard descriptors that `passed` leaves open, each with what it becomes.
pub(crate) fn standard_descriptors<'a>(
    passed: &'a [PassedFd],
    null: BorrowedFd<'a>,
) -> Vec<(DescriptorUse, BorrowedFd<'a>)> {
    use std::os::fd::AsFd;
    let find = |wanted| {
        passed
            .iter()
            .find(|p| p.used_as == wanted)
            .map(|p| p.fd.as_fd())
    };
    let output = find(DescriptorUse::Output).unwrap_or(null);
    [(0, null), (1, output), (2, output)]
        .into_iter()
        .map(|(number, fd)| (DescriptorUse::Number(number), fd))
        .filter(|(wanted, _)| find(*wanted).is_none())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount_tree::BindSource;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn spec() -> LaunchSpec {
        LaunchSpec::new("a test", Program::Path("/bin/true".into()))
    }

    #[test]
    fn contradictions_are_found_before_anything_starts() {
        let twice = [PassedFd::at(3, null()), PassedFd::at(3, null())];
        assert!(spec().check(&twice).is_err());
        assert!(spec().check(&[PassedFd::at(256, null())]).is_err());
        assert!(spec().check(&[PassedFd::at(-1, null())]).is_err());
        assert!(
            spec()
                .check(&[PassedFd::new(DescriptorUse::Program, null())])
                .is_err()
        );
        let mut tree = spec();
        tree.root = Some(MountTree::new().bind("x", BindSource(0), true));
        assert!(tree.check(&[]).is_err());
        let source = PassedFd::new(DescriptorUse::MountSource(0), null());
        assert!(tree.check(&[source]).is_ok());
    }

    #[test]
    fn several_cgroups_can_be_joined() {
        let passed = [
            PassedFd::new(DescriptorUse::CgroupProcs, null()),
            PassedFd::new(DescriptorUse::CgroupProcs, null()),
        ];
        assert!(spec().check(&passed).is_ok());
    }

    #[test]
    fn the_standard_descriptors_are_always_something() {
        let null = null();
        let passed = [PassedFd::output(null.try_clone().unwrap())];
        use std::os::fd::AsFd;
        let standard = standard_descriptors(&passed, null.as_fd());
        let numbers: Vec<_> = standard.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 1, 2].map(DescriptorUse::Number));
    }

    #[test]
    fn a_spec_survives_the_wire() {
        let mut spec = spec();
        spec.user = Some(User::NOBODY);
        spec.capabilities = Some(vec![Capability::DacOverride]);
        spec.limits = vec![ResourceLimit::OpenFiles { up_to: 7 }];
        let text = serde_json::to_vec(&spec).unwrap();
        assert_eq!(serde_json::from_slice::<LaunchSpec>(&text).unwrap(), spec);
    }
}
