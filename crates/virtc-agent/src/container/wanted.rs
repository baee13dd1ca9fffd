//! What a container that waits ready-made would have to become to be the one that is asked for.

use std::fs;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Mount, Process as ProcessSpec, Spec};

use crate::launch::{CommandMessage, KEPT};

/// Bytes of the further mounts, as they go to the maker: a task has a limit.
const FURTHER_BYTES_MAX: usize = 32 << 10;

/// What a container that waits is to become.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) command: CommandMessage,
    pub(super) root: PathBuf,
    pub(super) cwd: PathBuf,
    pub(super) mounts: Vec<Mount>,
    pub(super) hostname: Option<String>,
    pub(super) limits: Option<LinuxResources>,
}

/// What the container of `made` would have to become to be that of `asked`; nothing where they
/// differ by more. Both are prepared.
pub(super) fn wanted(made: &Spec, asked: &Spec) -> Option<Wanted> {
    let usual = made.mounts().as_deref().unwrap_or_default();
    let mounts = asked.mounts().as_deref().unwrap_or_default();
    let (first, further) = mounts.split_at_checked(usual.len())?;
    let process = asked.process().as_ref()?;
    let root = asked.root().as_ref()?.path().clone();
    let fits = first == usual
        && without_what_is_given(made) == without_what_is_given(asked)
        && further.iter().all(can_be_given)
        && is_short(further)
        && has_home(process)
        && KEPT.iter().all(|name| is_plain(&root.join(name)));
    if !fits {
        return None;
    }
    let linux = asked.linux().as_ref();
    Some(Wanted {
        command: CommandMessage::of(process)?,
        root,
        cwd: process.cwd().clone(),
        mounts: further.to_vec(),
        hostname: asked.hostname().clone(),
        limits: linux
            .and_then(|linux| linux.resources().as_ref())
            .and_then(limits),
    })
}

/// A specification without what a container that waits is given.
fn without_what_is_given(spec: &Spec) -> Spec {
    let mut rest = spec.clone();
    rest.set_version(String::new())
        .set_mounts(None)
        .set_hostname(None)
        .set_annotations(None);
    if let Some(root) = rest.root_mut() {
        root.set_path("/".into());
    }
    if let Some(process) = rest.process_mut() {
        process.set_args(None).set_env(None).set_cwd("/".into());
    }
    if let Some(linux) = rest.linux_mut() {
        linux.set_cgroups_path(None).set_resources(None);
    }
    rest
}

/// The limits of a container, if there are any. Devices are no affair of theirs.
fn limits(resources: &LinuxResources) -> Option<LinuxResources> {
    let mut limits = resources.clone();
    limits.set_devices(None);
    let mut none = LinuxResources::default();
    none.set_devices(None);
    (limits != none).then_some(limits)
}

/// Whether a mount is one of the guest's files or directories, and lies beside what every container
/// has: there, what is made or masked after all mounts is made already. A link of the root's that leads
/// there is not looked for: the bind lies on top then, where it would be masked in other containers.
fn can_be_given(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    let is_bind = mount.typ().as_deref() == Some("bind")
        || options
            .iter()
            .any(|option| option == "bind" || option == "rbind");
    let mut place = mount.destination().components();
    let from_root = place.next() == Some(Component::RootDir);
    let is_beside = match place.next() {
        Some(Component::Normal(first)) => !KEPT.iter().any(|kept| first == *kept),
        _ => false,
    };
    is_bind
        && from_root
        && is_beside
        && place.all(|component| matches!(component, Component::Normal(_)))
        && mount.uid_mappings().is_none()
        && mount.gid_mappings().is_none()
}

/// Whether the maker takes so many mounts.
fn is_short(mounts: &[Mount]) -> bool {
    serde_json::to_vec(mounts).is_ok_and(|text| text.len() <= FURTHER_BYTES_MAX)
}

/// Whether the environment has a home directory, which would have to be looked up in the root.
fn has_home(process: &ProcessSpec) -> bool {
    let env = process.env().as_deref().unwrap_or_default();
    env.iter().any(|entry| entry.starts_with("HOME="))
}

/// Whether this is a directory, or will be.
fn is_plain(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxBuilder, LinuxPidsBuilder, MountBuilder};

    use super::super::rehearsal::usual_spec;
    use super::*;

    fn spec() -> Spec {
        let mut spec = usual_spec().unwrap();
        spec.process_mut()
            .as_mut()
            .unwrap()
            .set_env(Some(vec!["HOME=/".into()]));
        spec
    }

    fn bind(destination: &str) -> Mount {
        MountBuilder::default()
            .destination(destination)
            .typ("bind")
            .source("/run/virtc/x")
            .options(vec!["rbind".to_owned(), "ro".to_owned()])
            .build()
            .unwrap()
    }

    fn with_mounts(further: impl IntoIterator<Item = Mount>) -> Spec {
        let mut spec = spec();
        let mut mounts = spec.mounts().clone().unwrap();
        mounts.extend(further);
        spec.set_mounts(Some(mounts));
        spec
    }

    #[test]
    fn a_container_that_differs_by_what_is_given_is_the_one_that_waits() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dev")).unwrap();
        let mut asked = with_mounts([bind("/etc/hosts"), bind("/a/b")]);
        asked
            .set_hostname(Some("other".into()))
            .set_annotations(Some([("a".into(), "b".into())].into()));
        asked
            .root_mut()
            .as_mut()
            .unwrap()
            .set_path(root.path().into());
        let process = asked.process_mut().as_mut().unwrap();
        process
            .set_args(Some(vec!["ls".into(), "-l".into()]))
            .set_cwd("/tmp".into());
        let mut limits = LinuxResources::default();
        limits
            .set_devices(None)
            .set_pids(Some(LinuxPidsBuilder::default().limit(7).build().unwrap()));
        asked
            .linux_mut()
            .as_mut()
            .unwrap()
            .set_resources(Some(limits.clone()))
            .set_cgroups_path(Some("/pod/c1".into()));

        let wanted = wanted(&spec(), &asked).unwrap();
        assert_eq!(wanted.root, root.path());
        assert_eq!(wanted.cwd, Path::new("/tmp"));
        assert_eq!(wanted.mounts, [bind("/etc/hosts"), bind("/a/b")]);
        assert_eq!(wanted.hostname.as_deref(), Some("other"));
        assert_eq!(wanted.limits, Some(limits));
    }

    #[test]
    fn what_differs_by_more_is_made_anew() {
        type Change = fn(&mut Spec);
        let changes: [(&str, Change); 9] = [
            ("terminal", |spec| {
                spec.process_mut()
                    .as_mut()
                    .unwrap()
                    .set_terminal(Some(true));
            }),
            ("user", |spec| {
                spec.process_mut()
                    .as_mut()
                    .unwrap()
                    .user_mut()
                    .set_uid(1u32);
            }),
            ("capabilities", |spec| {
                spec.process_mut().as_mut().unwrap().set_capabilities(None);
            }),
            ("privileges", |spec| {
                let process = spec.process_mut().as_mut().unwrap();
                process.set_no_new_privileges(Some(true));
            }),
            ("home", |spec| {
                spec.process_mut().as_mut().unwrap().set_env(None);
            }),
            ("read-only root", |spec| {
                spec.root_mut().as_mut().unwrap().set_readonly(Some(true));
            }),
            ("namespaces", |spec| {
                spec.set_linux(Some(LinuxBuilder::default().build().unwrap()));
            }),
            ("masked paths", |spec| {
                spec.linux_mut().as_mut().unwrap().set_masked_paths(None);
            }),
            ("fewer mounts", |spec| {
                spec.set_mounts(Some(Vec::new()));
            }),
        ];
        assert!(wanted(&spec(), &spec()).is_some());
        for (name, change) in changes {
            let mut asked = spec();
            change(&mut asked);
            assert!(wanted(&spec(), &asked).is_none(), "{name}");
        }
    }

    #[test]
    fn a_mount_over_what_is_masked_or_of_another_kind_is_made_anew() {
        let wrong = [
            "/",
            "/proc/keys",
            "/sys",
            "/dev",
            "/dev/null",
            "/a/../b",
            "a",
        ];
        for destination in wrong {
            let asked = with_mounts([bind(destination)]);
            assert!(wanted(&spec(), &asked).is_none(), "{destination}");
        }
        let mut tmpfs = bind("/tmp");
        tmpfs.set_typ(Some("tmpfs".into())).set_options(None);
        assert!(wanted(&spec(), &with_mounts([tmpfs])).is_none());
        let long = (0..16).map(|number| bind(&format!("/{number}{}", "x".repeat(4000))));
        assert!(wanted(&spec(), &with_mounts(long)).is_none());
    }

    #[test]
    fn a_root_whose_places_are_links_is_made_anew() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("sys")).unwrap();
        let mut asked = spec();
        asked
            .root_mut()
            .as_mut()
            .unwrap()
            .set_path(root.path().into());
        assert!(wanted(&spec(), &asked).is_none());
    }
}
