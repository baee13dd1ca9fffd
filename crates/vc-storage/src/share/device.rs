//! The process that serves a share, and how it is started.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use vc_launch::{
    BindSource, DescriptorUse, LaunchSpec, MountTree, Namespaces, PassedFd, Program, Propagation,
    ResourceLimit, TreeNode,
};
use vc_share_device::{Cache, Options, Slave};

use super::plan::{Access, CachePolicy, ShareNode, SharePlan};
use crate::error::{Error, Result};

/// The directory that is served, in the root that the process gets.
pub(super) const SHARED: &str = "share";

/// The number at which the process finds its listening socket.
const SOCKET: i32 = 3;

/// Descriptors that a share may hold. Every file that the guest knows is one, so this is how many
/// files a guest can know at once; hosts that allow fewer give as many as they allow.
const OPEN_FILES_MAX: u64 = 1_000_000;

/// What to start for `plan` from `program`, with `listener` as the socket.
///
/// `program` is one that does `internal share-device`, see [`vc_share_device::run`]. It is executed
/// by the descriptor opened here, since its path does not exist where it runs; for the same reason
/// it has to be statically linked.
pub(super) fn launch(
    program: &Path,
    plan: SharePlan,
    listener: OwnedFd,
    log: Option<OwnedFd>,
) -> Result<(LaunchSpec, Vec<PassedFd>)> {
    let own = File::open(program).map_err(|source| Error::Program {
        path: program.into(),
        source,
    })?;
    let mut passed = vec![
        PassedFd::new(DescriptorUse::Program, own),
        PassedFd::at(SOCKET, listener),
    ];
    passed.extend(log.map(PassedFd::output));
    let spec = spec(program, plan, &mut passed)?;
    Ok((spec, passed))
}

/// The spec of a share; the descriptors of its sources are added to `passed`.
fn spec(path: &Path, plan: SharePlan, passed: &mut Vec<PassedFd>) -> Result<LaunchSpec> {
    let writable = plan.is_writable();
    let program = Program::Descriptor {
        path: path.display().to_string(),
    };
    let mut spec = LaunchSpec::new(plan.name.clone(), program);
    spec.arg0 = Some("virtc".into());
    spec.args = ["internal", "share-device"].map(str::to_owned).into();
    spec.args.extend(options(&plan).arguments());
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

fn options(plan: &SharePlan) -> Options {
    Options {
        listener: SOCKET,
        directory: format!("/{SHARED}"),
        tag: plan.tag.clone(),
        cache: match plan.cache {
            CachePolicy::Checked => Cache::Checked,
            CachePolicy::Always => Cache::Always,
        },
        extended_attributes: plan.extended_attributes,
    }
}

/// What becomes of later mounts of the host below a name of the share's top.
pub(super) fn propagation(name: &str) -> Propagation {
    match Slave::of_name(name) {
        Some(_) => Propagation::Slave,
        None => Propagation::Private,
    }
}

/// The whole world of the process: what is shared, and its own descriptors.
fn tree(plan: SharePlan, passed: &mut Vec<PassedFd>) -> Result<MountTree> {
    let mut tree = MountTree::new()
        .dir(SHARED, 0o755)
        .with("proc/self/fd", TreeNode::OwnDescriptors);
    for (index, entry) in (0..).zip(plan.entries) {
        let plain = |name: &str| !matches!(name, "" | "." | "..");
        if !entry.at.split('/').all(plain) {
            return Err(Error::Plan {
                at: entry.at,
                reason: "the place must be relative, without . and ..",
            });
        }
        let propagation = propagation(&entry.at);
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
                        propagation,
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
        let spec = spec("/usr/bin/virtc".as_ref(), plan, &mut passed).unwrap();
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
