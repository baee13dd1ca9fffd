use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Result, invalid, io};
use crate::interface_name::InterfaceName;
use crate::ioctl;
use crate::limits::QUEUES_MAX;
use crate::link;
use crate::namespace::Namespace;
use crate::netlink::Netlink;

pub(crate) const DEVICE: &str = "/dev/net/tun";

/// What the names of the taps of this crate begin with; the index of their link follows.
const NAME_PREFIX: &str = "vctap";

/// A tap, or a macvtap: a link whose frames are read from and written to its descriptors.
///
/// They are handed to the VMM. One that [`Tap::make`] has made vanishes with the last of them; others
/// stay until they are removed.
#[derive(Debug)]
pub struct Tap {
    name: InterfaceName,
    index: u32,
    queues: Vec<OwnedFd>,
}

impl Tap {
    /// Makes a tap in the namespace with this many queues, with this MTU, and up. Each descriptor
    /// is one queue, and has a header of virtio-net before each frame.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] for no queue or more than [`QUEUES_MAX`], [`crate::Error::Io`] when
    /// it cannot be made, also when a link has its name. Nothing of it stays then.
    pub fn make(
        namespace: &Namespace,
        name: &InterfaceName,
        mtu: u32,
        queues: u16,
    ) -> Result<Self> {
        check_queues(queues)?;
        let queues = namespace
            .run_io(|| open_queues(name, queues))
            .map_err(io("make the tap", name))?;
        let mut netlink = namespace.netlink()?;
        let index = set_up(&mut netlink, name, mtu).map_err(io("set up the tap", name))?;
        Ok(Self {
            name: name.clone(),
            index,
            queues,
        })
    }

    /// One that was made or opened elsewhere.
    pub(crate) fn of(name: InterfaceName, index: u32, queues: Vec<OwnedFd>) -> Self {
        Self {
            name,
            index,
            queues,
        }
    }

    /// Its name in the namespace.
    pub fn name(&self) -> &InterfaceName {
        &self.name
    }

    /// Its index in the namespace.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its descriptors, one a queue.
    pub fn queues(&self) -> &[OwnedFd] {
        &self.queues
    }

    /// Gives the descriptors away.
    pub fn into_queues(self) -> Vec<OwnedFd> {
        self.queues
    }
}

/// A name of its own for each link, known before the tap is made.
pub(crate) fn name_for(index: u32) -> Result<InterfaceName> {
    InterfaceName::new(format!("{NAME_PREFIX}{index}"))
}

/// Whether a link has a name that only [`name_for`] gives.
pub(crate) fn is_name_of_ours(name: &str) -> bool {
    name.strip_prefix(NAME_PREFIX)
        .is_some_and(|index| !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Checks a number of queues.
pub(crate) fn check_queues(queues: u16) -> Result<()> {
    if (1..=QUEUES_MAX).contains(&queues) {
        return Ok(());
    }
    let reason = "a tap has from 1 to 256";
    Err(invalid("number of queues", &queues.to_string(), reason))
}

fn open_queues(name: &InterfaceName, queues: u16) -> io::Result<Vec<OwnedFd>> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if queues > 1 {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    (0..queues)
        .map(|queue| {
            let tun = File::options().read(true).write(true).open(DEVICE)?;
            // The first makes the tap, and must not join one that is there.
            let exclusive = if queue == 0 { libc::IFF_TUN_EXCL } else { 0 };
            ioctl::set_interface(tun.as_fd(), name, flags | exclusive)?;
            Ok(OwnedFd::from(tun))
        })
        .collect()
}

fn set_up(netlink: &mut Netlink, name: &InterfaceName, mtu: u32) -> io::Result<u32> {
    let tap = link::by_name(netlink, name)?.ok_or(io::ErrorKind::NotFound)?;
    link::silence_ipv6(netlink, tap.index)?;
    link::raise(netlink, tap.index, Some(mtu))?;
    Ok(tap.index)
}
