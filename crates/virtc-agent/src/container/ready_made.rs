//! A container that was made before it was asked for: its namespaces and its cgroup are there, and
//! its first process waits for a root and a command.
//!
//! To make a container takes an emulated guest a third of a start from a template, most of it code
//! that runs for the first time. A template has one that is what a throw-away VM's container usually
//! is. The first container of a clone is that one if it differs by its root, its command, its name,
//! its limits and its further mounts alone; it ends otherwise. What differs by more is made as ever.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use agent_protocol::oci_convert::{spec_from_message, spec_to_message};
use oci_spec::runtime::{LinuxResources, Mount, Process as ProcessSpec, Spec};

use super::create::{Files, Init, join_shared_pids};
use super::rehearsal::usual_spec;
use super::remove::remove_files;
use super::specification::prepare_spec;
use super::sysctl::NetworkSysctls;
use crate::cgroup::Cgroup;
use crate::error::{Attempt as _, Result};
use crate::launch::{
    CommandMessage, KEPT, Launched, NewRoot, PLACE, Request, StartHooks, Waiting, complete_waiting,
    launch_waiting,
};
use crate::pid_namespace::PidNamespace;
use crate::process::{ProcessIo, StdioPipes};
use crate::sandbox::Sandbox;
use crate::seccomp::PendingFilter;

use super::container_dir;

/// What its names begin with, which no container's id does.
const PREFIX: &str = ".ready-";

/// Bytes of the further mounts, as they go to the maker: a task has a limit.
const FURTHER_BYTES_MAX: usize = 32 << 10;

/// The container that waits, if there is one.
#[derive(Debug, Default)]
pub(crate) struct ReadyMadeSlot {
    made: Option<ReadyMade>,
    /// How many were made.
    count: u64,
}

/// A container that waits for its root and its command.
#[derive(Debug)]
pub(crate) struct ReadyMade {
    /// What the container library calls it.
    library_id: String,
    spec: Spec,
    filtered: bool,
    cgroup: Arc<Cgroup>,
    launched: Launched,
    io: ProcessIo,
    waiting: Waiting,
    /// The pid namespace that it is in, where nobody else will be.
    pids: Option<PidNamespace>,
}

/// What a container that waits is to become.
#[derive(Debug)]
pub(super) struct Wanted {
    command: CommandMessage,
    root: PathBuf,
    cwd: PathBuf,
    mounts: Vec<Mount>,
    hostname: Option<String>,
    limits: Option<LinuxResources>,
}

impl ReadyMade {
    /// Makes one, unless one waits.
    pub(crate) async fn stand_by(sandbox: &Sandbox) -> Result<()> {
        // One at a time: of two, one would be lost.
        let _alone = sandbox.standing_by.lock().await;
        if let Some(made) = sandbox.take_ready_made() {
            if made.waits() {
                sandbox.keep_ready_made(made);
                return Ok(());
            }
            made.end().await?;
        }
        let library_id = format!("{PREFIX}{}", sandbox.next_ready_made());
        let made = Self::make(sandbox, library_id).await?;
        sandbox.keep_ready_made(made);
        Ok(())
    }

    async fn make(sandbox: &Sandbox, library_id: String) -> Result<Self> {
        // As it would come from the host.
        let mut spec = spec_from_message(&spec_to_message(&usual_spec()?)?)?;
        let root = container_dir(&library_id).join("rootfs");
        if let Some(spec_root) = spec.root_mut() {
            spec_root.set_path(root.clone());
        }
        let cgroup = Arc::new(Cgroup::of_container(&library_id, None)?);
        NetworkSysctls::take(&mut spec)?.set()?;
        let seccomp = prepare_spec(&mut spec, &cgroup)?;
        StartHooks::take(&mut spec, &library_id, container_dir(&library_id))?;
        join_shared_pids(sandbox, &mut spec)?;
        let files = Undone(&library_id);
        Files::write(&library_id, &spec, None)?.keep();
        fs::create_dir_all(root.join(PLACE))
            .attempt(|| "create the root of a container that waits".into())?;
        // The first that asks for the usual filter finds it.
        let filter = seccomp.map(|seccomp| sandbox.filters.compile(seccomp));
        let filtered = filter.is_some();
        if let Some(filter) = filter {
            filter.compiled().await?;
        }
        let request = Request {
            container_id: library_id.clone(),
            bundle: container_dir(&library_id),
            ..Request::default()
        };
        let pipes = StdioPipes::new()?;
        let made = launch_waiting(&sandbox.launcher, request, pipes.child, filtered).await;
        let (launched, waiting) = match made {
            Ok(made) => made,
            Err(error) => {
                // What it failed for says more than that this fails too.
                let _ = cgroup.kill().await;
                let _ = cgroup.remove();
                return Err(error);
            }
        };
        files.keep();
        Ok(Self {
            library_id,
            spec,
            filtered,
            cgroup,
            launched,
            io: pipes.io,
            waiting,
            pids: None,
        })
    }

    /// The pid namespace ends with it.
    pub(crate) fn has_alone(&mut self, pids: PidNamespace) {
        self.pids = Some(pids);
    }

    /// Whether its process is there.
    fn waits(&self) -> bool {
        self.launched.exit.borrow().is_none()
    }

    /// What this would have to become to be the container of `spec`; nothing when it cannot.
    pub(super) fn wanted(&self, spec: &Spec, filtered: bool) -> Option<Wanted> {
        if self.filtered != filtered || !self.waits() {
            return None;
        }
        wanted(&self.spec, spec)
    }

    /// Becomes that container.
    pub(super) async fn complete(
        self,
        sandbox: &Sandbox,
        container_id: &str,
        wanted: Wanted,
        filter: Option<PendingFilter>,
    ) -> Result<Init> {
        let Self {
            library_id,
            cgroup,
            mut launched,
            io,
            waiting,
            ..
        } = self;
        let new_root = NewRoot {
            pid: launched.pid.as_raw_pid(),
            root: wanted.root,
            mounts: wanted.mounts,
            hostname: wanted.hostname,
            cwd: wanted.cwd,
        };
        let completed = async {
            if let Some(limits) = &wanted.limits {
                cgroup.update(limits)?;
            }
            let launcher = &sandbox.launcher;
            complete_waiting(
                launcher,
                waiting,
                container_id,
                new_root,
                &wanted.command,
                filter,
            )
            .await
        };
        let maker = match completed.await {
            Ok((filter, maker)) => {
                launched.filter = filter;
                maker
            }
            Err(error) => {
                // What it failed for says more than that this fails too.
                let _ = end(&library_id, &cgroup).await;
                return Err(error);
            }
        };
        Ok(Init {
            library_id,
            cgroup,
            launched,
            io,
            maker: Some(maker),
        })
    }

    /// Ends it.
    pub(crate) async fn end(self) -> Result<()> {
        if let Some(pids) = self.pids {
            pids.end();
        }
        end(&self.library_id, &self.cgroup).await
    }

    /// Ends it where nobody waits for that.
    pub(super) async fn end_or_warn(self) {
        if let Err(error) = self.end().await {
            tracing::warn!("{}", error.chain());
        }
    }
}

async fn end(library_id: &str, cgroup: &Cgroup) -> Result<()> {
    cgroup.kill().await?;
    cgroup.remove()?;
    remove_ready_made(library_id);
    Ok(())
}

/// The files of one that is being made, removed when it is not made after all.
struct Undone<'a>(&'a str);

impl Undone<'_> {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Undone<'_> {
    fn drop(&mut self) {
        remove_ready_made(self.0);
    }
}

/// Removes the files of one that became a container, or did not.
pub(super) fn remove_ready_made(library_id: &str) {
    let root = container_dir(library_id).join("rootfs");
    for name in KEPT.iter().chain([&PLACE]) {
        // Those that are not there need not be removed, and what stays is told of with the rest.
        let _ = fs::remove_dir(root.join(name));
    }
    remove_files(library_id);
}

impl ReadyMadeSlot {
    pub(crate) fn take(&mut self) -> Option<ReadyMade> {
        self.made.take()
    }

    pub(crate) fn keep(&mut self, made: ReadyMade) {
        self.made = Some(made);
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}

/// What the container of `made` would have to become to be that of `asked`; nothing where they
/// differ by more. Both are prepared.
fn wanted(made: &Spec, asked: &Spec) -> Option<Wanted> {
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
/// has: there, what is made or masked after all mounts is made already.
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
