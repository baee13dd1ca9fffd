//! Shares: processes of `vc_share_device` that can reach nothing but what they serve.

pub mod host_system;

mod device;
mod plan;
mod rights;
mod running;
mod source;

use std::os::fd::OwnedFd;
use std::path::Path;

use vc_launch::{LaunchedProcess, Launcher, Pending, SocketPair};

pub use self::plan::{Access, CachePolicy, ShareEntry, ShareNode, SharePlan};
pub use self::rights::Rights;
pub use self::running::RunningShare;
pub use self::source::{Source, SourceKind};
use crate::error::{Error, Result};
pub use vc_share_device::Slave;

/// One running share.
///
/// It ends when the VMM closes its end of the socket, when it is dropped, and when the launcher
/// or this process ends. With it ends the mount namespace and everything mounted there.
#[derive(Debug)]
pub struct Share {
    process: LaunchedProcess,
    vmm_end: Option<OwnedFd>,
}

impl Share {
    /// Starts a process with what `plan` says, from `program`, which does `internal share-device`.
    ///
    /// `directory` is a directory of the caller's alone, for a socket that has a name there for
    /// the blink of an eye. What the process prints goes to `log`, or nowhere.
    ///
    /// The share serves as soon as a VMM talks: there is nothing more to wait for.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`](crate::Error::Plan), [`Error::Socket`](crate::Error::Socket),
    /// [`Error::Launch`](crate::Error::Launch).
    pub async fn start(
        launcher: &Launcher,
        program: &Path,
        plan: SharePlan,
        directory: &Path,
        log: Option<OwnedFd>,
    ) -> Result<Self> {
        let (pending, vmm_end) = begin(launcher, program, plan, directory, log)?;
        Ok(Self {
            process: pending.await?,
            vmm_end: Some(vmm_end),
        })
    }

    /// [`Self::start`], for a thread that may block.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_blocking(
        launcher: &Launcher,
        program: &Path,
        plan: SharePlan,
        directory: &Path,
        log: Option<OwnedFd>,
    ) -> Result<Self> {
        let (pending, vmm_end) = begin(launcher, program, plan, directory, log)?;
        Ok(Self {
            process: pending.wait()?,
            vmm_end: Some(vmm_end),
        })
    }

    /// The connected vhost-user socket for the VMM; nothing when it was taken before.
    pub fn take_vmm_end(&mut self) -> Option<OwnedFd> {
        self.vmm_end.take()
    }

    /// The process and the connected vhost-user socket, for a keeper that watches over more than
    /// shares; the socket is there unless it was taken before.
    pub fn into_parts(self) -> (LaunchedProcess, Option<OwnedFd>) {
        (self.process, self.vmm_end)
    }

    /// The process, to be watched.
    pub fn process(&self) -> &LaunchedProcess {
        &self.process
    }

    /// The process, to be waited for or ended.
    pub fn process_mut(&mut self) -> &mut LaunchedProcess {
        &mut self.process
    }
}

fn begin(
    launcher: &Launcher,
    program: &Path,
    plan: SharePlan,
    directory: &Path,
    log: Option<OwnedFd>,
) -> Result<(Pending, OwnedFd)> {
    let sockets = SocketPair::new(directory).map_err(|source| Error::Socket {
        directory: directory.into(),
        source,
    })?;
    let (spec, passed) = device::launch(program, plan, sockets.listener, log)?;
    Ok((launcher.launch(spec, passed), sockets.connected))
}
