//! Devices that come and go while a VM runs.

mod record;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use serde::{Deserialize, Serialize};
use vc_types::ByteSize;

pub use record::HotPlugRecord;
pub(crate) use record::Place;

use crate::nic;
use crate::spec::{self, SERIAL_BYTES_MAX};
use crate::{Capabilities, Disk, Error, Nic, NicBackend, Result};

/// The id of [`HotDevice::Memory`].
const MEMORY_ID: &str = "memory";

/// A device that a running VM gets.
///
/// The descriptors in it are given away: the VMM gets them, and this process keeps none.
#[derive(Debug)]
pub enum HotDevice {
    /// A network device; its frames go through taps, which are open. The VMM's own network stack
    /// is there from the start of a VM or not at all.
    Nic(Nic),
    /// A disk: a file or a block device of the host. Its serial number is its id.
    Disk(Disk),
    /// Room for so much memory, none of which the guest has yet. There is one of it, and it stays.
    Memory(ByteSize),
}

/// A kind of [`HotDevice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HotDeviceKind {
    /// [`HotDevice::Nic`].
    Nic,
    /// [`HotDevice::Disk`].
    Disk,
    /// [`HotDevice::Memory`].
    Memory,
}

/// A device that was plugged in, by the account of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugged {
    /// By which it is unplugged: a network device's id, a disk's serial number.
    pub id: String,
    /// What it is.
    pub kind: HotDeviceKind,
    /// Where the guest finds it: slot and function of the bridge, and of the device behind it, as
    /// the agent's calls have it: `18.3/00`.
    pub pci_path: String,
    /// How far it is.
    pub phase: PlugPhase,
}

/// How far a device that comes or goes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlugPhase {
    /// Its place is taken. Where whoever plugs it in was interrupted, any part of it may be there.
    Coming,
    /// The VM has it.
    Present,
    /// It is to go. The guest may still have it, or the VMM a part of it.
    Leaving,
}

impl HotDeviceKind {
    /// As messages have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nic => "network device",
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

impl HotDevice {
    /// By which it is unplugged.
    pub fn id(&self) -> &str {
        match self {
            Self::Nic(nic) => &nic.id,
            Self::Disk(disk) => &disk.serial,
            Self::Memory(_) => MEMORY_ID,
        }
    }

    /// What it is.
    pub const fn kind(&self) -> HotDeviceKind {
        match self {
            Self::Nic(_) => HotDeviceKind::Nic,
            Self::Disk(_) => HotDeviceKind::Disk,
            Self::Memory(_) => HotDeviceKind::Memory,
        }
    }

    /// Compares it with what a driver can do.
    ///
    /// # Errors
    ///
    /// [`Error::Spec`] with the first thing that cannot be.
    pub fn check(&self, capabilities: &Capabilities) -> Result<()> {
        let kind = self.kind();
        if !capabilities.hot_plug.contains(&kind) {
            return Err(cannot(format!(
                "the VMM takes no {} while it runs",
                kind.as_str()
            )));
        }
        match self {
            Self::Nic(device) => {
                spec::names("nic ids", [self.id()].into_iter(), nic::ID_BYTES_MAX)?;
                nic::check(std::slice::from_ref(device), capabilities)?;
                match device.backend {
                    NicBackend::Tap { .. } => Ok(()),
                    NicBackend::User { .. }
                    | NicBackend::Stream { .. }
                    | NicBackend::VhostUser { .. }
                    | NicBackend::Passed { .. } => Err(cannot(
                        "only a tap is plugged in: other network devices are there from the start only"
                            .into(),
                    )),
                }
            }
            Self::Disk(disk) => {
                spec::names("disk serials", [self.id()].into_iter(), SERIAL_BYTES_MAX)?;
                DiskFile::of(disk).map(drop)
            }
            Self::Memory(size) => match size.bytes() {
                0 => Err(cannot("there is no memory to plug in".into())),
                _ => Ok(()),
            },
        }
    }

    /// What no other device of the VM may have: its id first.
    fn names(&self) -> Vec<String> {
        match self {
            Self::Nic(nic) => vec![nic.id.clone(), nic::mac_text(nic.mac)],
            Self::Disk(disk) => vec![disk.serial.clone()],
            Self::Memory(_) => vec![MEMORY_ID.into()],
        }
    }

    /// The descriptors that it needs, in the order in which they are passed.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Nic(nic) => match &nic.backend {
                NicBackend::Tap { fds, vhost_fds } => {
                    fds.iter().chain(vhost_fds).map(OwnedFd::as_fd).collect()
                }
                NicBackend::Stream { socket } | NicBackend::VhostUser { socket } => {
                    vec![socket.as_fd()]
                }
                NicBackend::User { .. } | NicBackend::Passed { .. } => Vec::new(),
            },
            Self::Disk(disk) => vec![disk.image.as_fd()],
            Self::Memory(_) => Vec::new(),
        }
    }
}

/// What a disk is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskFile {
    /// An image.
    Regular,
    /// A block device.
    BlockDevice,
}

impl DiskFile {
    /// Looks at the descriptor itself: what its name means may have changed.
    pub(crate) fn of(disk: &Disk) -> Result<Self> {
        let seen = |error: rustix::io::Errno| cannot(format!("{}: {error}", disk.serial));
        let access = fcntl_getfl(&disk.image).map_err(seen)? & OFlags::ACCMODE;
        let wanted = match disk.read_only {
            true => OFlags::RDONLY,
            false => OFlags::RDWR,
        };
        if access != wanted {
            let wanted = match disk.read_only {
                true => "reading only",
                false => "reading and writing",
            };
            return Err(cannot(format!("{} is not open for {wanted}", disk.serial)));
        }
        match FileType::from_raw_mode(fstat(&disk.image).map_err(seen)?.st_mode) {
            FileType::RegularFile => Ok(Self::Regular),
            FileType::BlockDevice => Ok(Self::BlockDevice),
            other => Err(cannot(format!(
                "{} is neither a file nor a block device: {other:?}",
                disk.serial
            ))),
        }
    }
}

fn cannot(reason: String) -> Error {
    Error::Spec {
        what: "devices",
        reason,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::mock;

    fn refused(device: &HotDevice) -> String {
        device.check(&mock::CAPABILITIES).unwrap_err().to_string()
    }

    fn disk(image: impl Into<OwnedFd>, serial: &str, read_only: bool) -> HotDevice {
        HotDevice::Disk(Disk {
            image: image.into(),
            serial: serial.into(),
            read_only,
            scratch: false,
        })
    }

    fn nic(backend: NicBackend) -> HotDevice {
        HotDevice::Nic(Nic {
            id: "net0".into(),
            mac: [2, 0, 0, 0, 0, 1],
            queues: 1,
            backend,
        })
    }

    #[test]
    fn what_cannot_be_plugged_is_refused_by_name() {
        let file = || tempfile::tempfile().unwrap();
        assert!(
            disk(file(), "data", false)
                .check(&mock::CAPABILITIES)
                .is_ok()
        );
        let own = File::open(std::env::current_exe().unwrap()).unwrap();
        let read_only = disk(own, "data", true);
        assert!(read_only.check(&mock::CAPABILITIES).is_ok());
        assert!(refused(&disk(file(), "data", true)).contains("not open for reading only"));
        assert!(refused(&disk(mock::null().unwrap(), "data", false)).contains("neither a file"));
        assert!(refused(&disk(file(), "a,b", false)).contains("a,b"));
        assert!(refused(&disk(file(), &"x".repeat(21), false)).contains("20 bytes"));
        let user = NicBackend::User {
            ipv6: true,
            forwards: Vec::new(),
            filter: None,
        };
        assert!(refused(&nic(user)).contains("only a tap"));
        let tap = NicBackend::Tap {
            fds: Vec::new(),
            vhost_fds: Vec::new(),
        };
        assert!(refused(&nic(tap)).contains("0 tap descriptors"));
        let without = Capabilities {
            hot_plug: &[HotDeviceKind::Nic],
            ..mock::CAPABILITIES
        };
        let error = disk(file(), "data", false).check(&without).unwrap_err();
        assert!(error.to_string().contains("takes no disk"), "{error}");
    }
}
