use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error as BackendError, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use crate::device::{Device, HOST_EVENT};
use crate::error::{Error, Result};
use crate::limits::{CONNECTIONS_MAX, DESCRIPTORS_RESERVED, VMM_CONNECT_TIMEOUT_S};
use crate::muxer::Muxer;
use crate::options::Options;

/// Serves one VMM until it disconnects.
///
/// Connections that are open then end. Host programs get what the guest sent before; those that
/// have not read it yet have a moment for that, in which this function waits. The soft limit of
/// open descriptors of the process is raised as far as the hard one allows and the connections
/// need. While it runs, two more threads do.
///
/// # Errors
///
/// [`Error`] when the device cannot start, when no VMM connects in time, or when the VMM breaks
/// the vhost-user protocol. A VMM that ends, in whatever way, is no error.
pub fn run(options: Options) -> Result<()> {
    if !(3..u64::from(u32::MAX)).contains(&options.guest_cid) {
        return Err(Error::InvalidCid {
            cid: options.guest_cid,
        });
    }
    let connections_max = connections_max()?;
    rustix::io::ioctl_fionbio(&options.host_socket, true)
        .map_err(Error::system("make the host's socket non-blocking"))?;
    let epoll =
        epoll::create(CreateFlags::CLOEXEC).map_err(Error::system("create an event queue"))?;
    let events = epoll.as_raw_fd();
    let muxer = Muxer::new(
        options.guest_cid,
        epoll,
        options.host_socket,
        options.upcall_dir,
        connections_max,
    )
    .map_err(Error::system("watch the host's socket"))?;
    let device = Arc::new(Device::new(muxer).map_err(Error::system("create an event"))?);

    let vhost_socket = UnixListener::from(options.vhost_socket);
    vhost_socket
        .set_nonblocking(false)
        .map_err(|source| Error::System {
            attempt: "make the VMM's socket blocking",
            source,
        })?;
    wait_for_vmm(&vhost_socket)?;
    let ended = serve(&device, events, vhost_socket);
    // All threads have ended.
    device.drain();
    match device.into_failure() {
        Some(failure) => Err(failure),
        None => ended,
    }
}

/// Serves the VMM that waits at the socket until it goes.
fn serve(device: &Arc<Device>, events: RawFd, vhost_socket: UnixListener) -> Result<()> {
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("vhost-user".to_owned(), Arc::clone(device), memory)
        .map_err(|error| Error::vhost_user(&error))?;
    for handler in daemon.get_epoll_handlers() {
        handler
            .register_listener(events, EventSet::IN, HOST_EVENT)
            .map_err(|source| Error::System {
                attempt: "register the host's events",
                source,
            })?;
    }
    daemon
        .start(&mut Listener::from(vhost_socket))
        .map_err(|error| Error::vhost_user(&error))?;
    device.set_end(daemon.shutdown_handle());
    match daemon.wait() {
        Ok(()) => Ok(()),
        // The ways in which a VMM that ends is seen.
        Err(BackendError::HandleRequest(
            ProtocolError::Disconnected | ProtocolError::PartialMessage,
        )) => Ok(()),
        Err(error) => Err(Error::vhost_user(&error)),
    }
}

fn wait_for_vmm(socket: &UnixListener) -> Result<()> {
    let mut sockets = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
    let limit = Timespec {
        tv_sec: VMM_CONNECT_TIMEOUT_S,
        tv_nsec: 0,
    };
    match retry_on_intr(|| poll(&mut sockets, Some(&limit)))
        .map_err(Error::system("wait for the VMM"))?
    {
        0 => Err(Error::VmmMissing {
            limit_s: VMM_CONNECT_TIMEOUT_S,
        }),
        _ => Ok(()),
    }
}

/// As many connections as there can be descriptors.
fn connections_max() -> Result<usize> {
    let wanted = (CONNECTIONS_MAX + DESCRIPTORS_RESERVED) as u64;
    let old = getrlimit(Resource::Nofile);
    let current = old.current.unwrap_or(u64::MAX);
    let maximum = old.maximum.unwrap_or(u64::MAX);
    let mut limit = current;
    if current < wanted {
        limit = wanted.min(maximum);
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(limit),
                maximum: old.maximum,
            },
        )
        .map_err(Error::system("raise the limit of open descriptors"))?;
    }
    let left = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_sub(DESCRIPTORS_RESERVED);
    match left.min(CONNECTIONS_MAX) {
        0 => Err(Error::DescriptorLimit { limit }),
        count => Ok(count),
    }
}

#[cfg(test)]
mod fake_guest;
#[cfg(test)]
mod tests;
