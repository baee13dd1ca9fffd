//! The link itself, which is a tap that the machine opens.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::error::{Result, io};
use crate::interface_name::InterfaceName;
use crate::ioctl;
use crate::limits::QUEUES_MAX;
use crate::namespace::Namespace;
use crate::tap::{DEVICE, Tap};

/// How somebody has made a tap. Whoever opens it sets most of it anew, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TapFlags {
    /// Whether frames have a header of virtio-net before them.
    pub(crate) virtio_header: bool,
    /// Whether frames have a header of four bytes before them.
    pub(crate) packet_information: bool,
    /// Whether it can have several queues. This one cannot be set anew.
    pub(crate) several_queues: bool,
}

impl TapFlags {
    /// The most queues that it can have.
    pub(crate) fn queues_max(self) -> u16 {
        if self.several_queues { QUEUES_MAX } else { 1 }
    }

    fn bits(self) -> libc::c_int {
        let bit = |set, bit| if set { bit } else { 0 };
        libc::IFF_TAP
            | bit(self.virtio_header, libc::IFF_VNET_HDR)
            | bit(!self.packet_information, libc::IFF_NO_PI)
            | bit(self.several_queues, libc::IFF_MULTI_QUEUE)
    }
}

/// Opens the tap, which must be nobody's else.
pub(crate) fn open(
    namespace: &Namespace,
    name: &InterfaceName,
    index: u32,
    found: TapFlags,
    queues: u16,
) -> Result<Tap> {
    let flags = TapFlags {
        virtio_header: true,
        packet_information: false,
        ..found
    };
    let queues = namespace
        .run_io(|| (0..queues).map(|_| join(name, flags)).collect())
        .map_err(io("open the tap", name))?;
    Ok(Tap::of(name.clone(), index, queues))
}

/// Makes the tap again what it was. Nobody must have it open.
pub(crate) fn restore(
    namespace: &Namespace,
    name: &InterfaceName,
    found: TapFlags,
) -> io::Result<()> {
    namespace.run_io(|| join(name, found)).map(|_| ())
}

fn join(name: &InterfaceName, flags: TapFlags) -> io::Result<OwnedFd> {
    let tun = File::options().read(true).write(true).open(DEVICE)?;
    ioctl::set_interface(tun.as_fd(), name, flags.bits())?;
    Ok(tun.into())
}
