use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};
use vhost::vhost_user::{Error as VhostUserError, Listener};
use vhost_user_backend::{Error as BackendError, VhostUserDaemon};
use virtiofsd::passthrough::{CachePolicy, Config};
use virtiofsd::seccomp::{SeccompAction, enable_seccomp};
use virtiofsd::vhost_user::VhostUserFsBackendBuilder;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::error::{Error, Result};
use crate::log_lines;
use crate::options::{Cache, Options};
use crate::served::Served;

/// Descriptors that are not for the guest's files: the memory regions of a VMM, queues, and some to
/// spare.
const OWN_DESCRIPTORS: u64 = 640;

/// Serves the share until the VMM closes the connection.
///
/// # Errors
///
/// See [`Error`].
pub fn run(options: &Options, listener: OwnedFd) -> Result<()> {
    log_lines::begin();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let for_the_guest = limit.saturating_sub(OWN_DESCRIPTORS);
    if for_the_guest == 0 {
        return Err(Error::DescriptorLimit { limit });
    }
    enable_seccomp(SeccompAction::Kill, false).map_err(|error| Error::Seccomp {
        reason: error.to_string(),
    })?;
    let file_system =
        Served::new(config(options, for_the_guest)).map_err(|source| Error::Directory {
            directory: options.directory.clone(),
            source,
        })?;
    let failed = |attempt, error: &dyn std::fmt::Display| Error::Device {
        attempt,
        reason: error.to_string(),
    };
    let backend = VhostUserFsBackendBuilder::default()
        .set_tag(options.tag.clone())
        .build(file_system)
        .map_err(|error| failed("make the device", &error))?;
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("share".to_owned(), Arc::new(backend), memory)
        .map_err(|error| failed("start the device", &error))?;
    daemon
        .start(&mut Listener::from(std::os::unix::net::UnixListener::from(
            listener,
        )))
        .map_err(|error| failed("wait for the VMM", &error))?;
    match daemon.wait() {
        Ok(()) | Err(BackendError::HandleRequest(VhostUserError::Disconnected)) => Ok(()),
        Err(error) => Err(failed("serve the VMM", &error)),
    }
}

fn config(options: &Options, for_the_guest: u64) -> Config {
    let lifetime = options.cache.lifetime();
    Config {
        root_dir: options.directory.clone(),
        entry_timeout: lifetime,
        attr_timeout: lifetime,
        // Content stays when a file is opened again; the guest's kernel drops it when the size or
        // the time of change that it is told differs.
        cache_policy: CachePolicy::Always,
        // With attributes, every listed file would be known to the guest, and take a descriptor.
        readdirplus: options.cache == Cache::Checked,
        xattr: options.extended_attributes,
        guest_fd_limit: for_the_guest,
        // Opening by handle needs a right that reaches every file of a file system, which the
        // default leaves alone; and an overlay in the guest refuses a lower layer that mounts by
        // itself, so submounts are not announced.
        ..Config::default()
    }
}
