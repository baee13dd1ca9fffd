//! Waits for devices by the kernel's own events.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use crate::error::{Attempt as _, Result};

/// The group of the kernel's own messages.
const KERNEL_GROUP: u32 = 1;

/// A listener. Events from before it was made are not seen: look after making it.
#[derive(Debug)]
pub(crate) struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Begins to listen.
    pub(crate) fn listen() -> Result<Self> {
        let attempt = || "listen for the kernel's device events".to_owned();
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::KOBJECT_UEVENT),
        )
        .attempt(attempt)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP)).attempt(attempt)?;
        Ok(Self { socket })
    }

    /// Looks now and after each event, until something is found or the limit has passed.
    pub(crate) fn wait_until<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = look() {
                return Ok(Some(found));
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(None);
            }
            self.wait_event(Some(rest))?;
        }
    }

    /// Waits for the next event, however long that takes.
    pub(crate) fn wait(&self) -> Result<()> {
        self.wait_event(None)
    }

    /// Waits for an event and takes all that are there. What they say does not matter.
    fn wait_event(&self, limit: Option<Duration>) -> Result<()> {
        let attempt = || "wait for the kernel's device events".to_owned();
        let limit = limit.map(Timespec::try_from).transpose();
        let limit = limit.map_err(|_| Errno::RANGE).attempt(attempt)?;
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).attempt(attempt),
        }
        let mut event = [0; 4096];
        loop {
            match rustix::net::recv(&self.socket, &mut event[..], RecvFlags::empty()) {
                Ok(_) => {}
                // Too many events at once: some were lost, and we look anyway.
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error).attempt(attempt),
            }
        }
    }
}
