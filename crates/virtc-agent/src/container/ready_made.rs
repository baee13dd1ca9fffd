//! A container that was made before it was asked for: its namespaces and its cgroup are there, and
//! its first process waits for a root and a command.
//!
//! To make a container takes an emulated guest a third of a start from a template, most of it code
//! that runs for the first time. A template has one that is what a throw-away VM's container usually
//! is. The first container of a clone is that one if it differs by its root, its command, its name,
//! its limits and its further mounts alone; it ends otherwise. What differs by more is made as ever.

use std::fs;
use std::sync::Arc;

use agent_protocol::oci_convert::{spec_from_message, spec_to_message};
use oci_spec::runtime::Spec;

use super::container_dir;
use super::create::{Files, Init, join_shared_pids};
use super::rehearsal::usual_spec;
use super::remove::remove_files;
use super::specification::prepare_spec;
use super::sysctl::NetworkSysctls;
use super::wanted::{Wanted, wanted};
use crate::cgroup::Cgroup;
use crate::error::{Attempt as _, Result};
use crate::launch::{
    KEPT, Launched, NewRoot, PLACE, Request, StartHooks, Waiting, complete_waiting, launch_waiting,
};
use crate::pid_namespace::PidNamespace;
use crate::process::{ProcessIo, StdioPipes};
use crate::sandbox::Sandbox;
use crate::seccomp::PendingFilter;

/// What its names begin with, which no container's id does.
const PREFIX: &str = ".ready-";

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
        let seccomp = prepare_spec(&mut spec, &cgroup, false)?;
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
