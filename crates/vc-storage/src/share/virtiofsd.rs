//! The program that serves a share, and how it is started.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access as Permission, AtFlags, Mode, OFlags, accessat, open};
use vc_launch::{
    BindSource, DescriptorUse, LaunchSpec, MountTree, Namespaces, PassedFd, Program, ResourceLimit,
    TreeNode,
};

use super::elf;
use super::plan::{Access, CachePolicy, ShareNode, SharePlan};
use crate::error::{Error, Result};

/// The directory that is served, in the root that the process gets.
pub(super) const SHARED: &str = "share";

/// The number at which the process finds its listening socket.
const SOCKET: i32 = 3;

/// Descriptors that a share may hold. Every file that the guest knows is one, so this is how many
/// files a guest can know at once; it is the default of `virtiofsd`, and hosts that allow fewer
/// give as many as they allow.
const OPEN_FILES_MAX: u64 = 1_000_000;

/// What `virtiofsd` reads before it looks at its limit. It is not used.
const NR_OPEN: &str = "1048576\n";

/// The program `virtiofsd`, version 1.11 or later, statically linked: a loader and libraries do not
/// exist where it runs.
#[derive(Debug)]
pub struct Virtiofsd {
    path: PathBuf,
    file: OwnedFd,
}

impl Virtiofsd {
    /// Finds the program. It is executed by the descriptor opened here, since its path does not
    /// exist where it runs.
    ///
    /// # Errors
    ///
    /// [`Error::Virtiofsd`] when it is not there or cannot be executed;
    /// [`Error::VirtiofsdLinked`] when it is not statically linked.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |errno: rustix::io::Errno| Error::Virtiofsd {
            path: path.into(),
            source: io::Error::from(errno),
        };
        let file = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
        accessat(rustix::fs::CWD, path, Permission::EXEC_OK, AtFlags::EACCESS).map_err(failed)?;
        let linked = elf::needs_loader(path).map_err(|source| Error::Virtiofsd {
            path: path.into(),
            source,
        })?;
        if linked {
            return Err(Error::VirtiofsdLinked { path: path.into() });
        }
        Ok(Self {
            path: path.into(),
            file,
        })
    }

    /// What to start for `plan`, with `listener` as the socket.
    pub(super) fn launch(
        &self,
        plan: SharePlan,
        listener: OwnedFd,
        log: Option<OwnedFd>,
    ) -> Result<(LaunchSpec, Vec<PassedFd>)> {
        let program = self.file.try_clone().map_err(|source| Error::Virtiofsd {
            path: self.path.clone(),
            source,
        })?;
        let mut passed = vec![
            PassedFd::new(DescriptorUse::Program, program),
            PassedFd::at(SOCKET, listener),
        ];
        passed.extend(log.map(PassedFd::output));
        let spec = spec(&self.path, plan, &mut passed)?;
        Ok((spec, passed))
    }
}

/// The spec of a share; the descriptors of its sources are added to `passed`.
fn spec(path: &Path, plan: SharePlan, passed: &mut Vec<PassedFd>) -> Result<LaunchSpec> {
    let writable = plan.is_writable();
    let program = Program::Descriptor {
        path: path.display().to_string(),
    };
    let mut spec = LaunchSpec::new(plan.name.clone(), program);
    spec.args = arguments(&plan, writable);
    spec.user = Some(plan.rights.user());
    spec.capabilities = Some(plan.rights.capabilities(writable).to_vec());
    spec.namespaces = Namespaces {
        mount: true,
        net: true,
        ipc: true,
        uts: true,
    };
    spec.limits = vec![
        ResourceLimit::OpenFiles {
            up_to: OPEN_FILES_MAX,
        },
        ResourceLimit::CoreBytes(0),
    ];
    spec.root = Some(tree(plan, passed)?);
    Ok(spec)
}

fn arguments(plan: &SharePlan, writable: bool) -> Vec<String> {
    let cache = match plan.cache {
        CachePolicy::Auto => "auto",
        CachePolicy::Always => "always",
    };
    let mut arguments = vec![
        format!("--fd={SOCKET}"),
        format!("--shared-dir=/{SHARED}"),
        // The namespaces are made before it starts.
        "--sandbox=none".to_owned(),
        "--seccomp=kill".to_owned(),
        format!("--cache={cache}"),
        // Opening by handle needs a right that reaches every file of a file system.
        "--inode-file-handles=never".to_owned(),
        // An overlay in the guest refuses a lower layer that mounts by itself.
        "--no-announce-submounts".to_owned(),
        // The launcher has set it.
        "--rlimit-nofile=0".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    if plan.cache == CachePolicy::Always {
        // What does not change is large and mostly listed by name; with attributes, every listed
        // file would be known to the guest, and take a descriptor here.
        arguments.push("--no-readdirplus".to_owned());
    }
    if plan.extended_attributes {
        arguments.push("--xattr".to_owned());
    }
    arguments.extend(
        plan.rights
            .modcaps(writable)
            .map(|caps| format!("--modcaps={caps}")),
    );
    arguments
}

/// The whole world of the process: what is shared, its own descriptors, and one number.
fn tree(plan: SharePlan, passed: &mut Vec<PassedFd>) -> Result<MountTree> {
    let mut tree = MountTree::new()
        .dir(SHARED, 0o755)
        .with("proc/self/fd", TreeNode::OwnDescriptors)
        .with(
            "proc/sys/fs/nr_open",
            TreeNode::File {
                content: NR_OPEN.into(),
                mode: 0o444,
            },
        );
    for (index, entry) in (0..).zip(plan.entries) {
        let plain = |name: &str| !matches!(name, "" | "." | "..");
        if !entry.at.split('/').all(plain) {
            return Err(Error::Plan {
                at: entry.at,
                reason: "the place must be relative, without . and ..",
            });
        }
        let at = format!("{SHARED}/{}", entry.at);
        tree = match entry.node {
            ShareNode::Dir { mode } => tree.dir(at, mode),
            ShareNode::Symlink { target } => tree.symlink(at, target),
            ShareNode::Source {
                source,
                access,
                recursive,
            } => {
                let used_as = DescriptorUse::MountSource(index);
                passed.push(PassedFd::new(used_as, source.into_fd()));
                tree.with(
                    at,
                    TreeNode::Bind {
                        source: BindSource(index),
                        recursive,
                        read_only: access == Access::ReadOnly,
                    },
                )
            }
        };
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use vc_launch::User;

    use super::*;
    use crate::share::{Rights, Source};

    fn launched(mut plan: SharePlan, access: Access) -> (LaunchSpec, Vec<PassedFd>) {
        let source = Source::open("/usr".as_ref()).unwrap();
        plan.add("volume/0", source, access);
        let mut passed = Vec::new();
        let spec = spec("/usr/libexec/virtiofsd".as_ref(), plan, &mut passed).unwrap();
        (spec, passed)
    }

    fn root() -> Rights {
        Rights::Invoker(User {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        })
    }

    #[test]
    fn an_unprivileged_share() {
        let (spec, passed) = launched(SharePlan::new("a share", Rights::Nothing), Access::ReadOnly);
        assert_eq!(passed.len(), 1);
        insta::assert_debug_snapshot!(spec);
    }

    #[test]
    fn a_writable_share_of_root() {
        let mut plan = SharePlan::new("a share", root());
        plan.extended_attributes = true;
        let (spec, _) = launched(plan, Access::ReadWrite);
        insta::assert_debug_snapshot!((spec.args, spec.user, spec.capabilities));
    }

    #[test]
    fn a_place_outside_of_the_share_is_refused() {
        for bad in ["../x", "/x", "", "a/../../x", "."] {
            let mut plan = SharePlan::new("a share", Rights::Nothing);
            plan.push(bad, ShareNode::Dir { mode: 0o755 });
            let error = spec("/x".as_ref(), plan, &mut Vec::new()).unwrap_err();
            assert!(matches!(error, Error::Plan { .. }), "{bad}");
        }
    }
}
