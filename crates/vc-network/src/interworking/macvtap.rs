//! A macvtap on the link, which takes all that the link receives.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::error::{Result, io};
use crate::interface_name::InterfaceName;
use crate::ioctl;
use crate::link;
use crate::namespace::Namespace;
use crate::netlink::Netlink;
use crate::tap::Tap;

/// Bytes of a file that says a device's numbers.
const NUMBERS_BYTES_MAX: usize = 32;

/// Makes the macvtap on the link. One that cannot be made leaves nothing.
///
/// Its mode is `passthru`: it has the link's own hardware address, and the link stays as it was.
pub(crate) fn make(netlink: &mut Netlink, name: &InterfaceName, on: u32) -> Result<()> {
    link::make_macvtap(netlink, name, on).map_err(io("make the macvtap", name))
}

/// Opens the macvtap of this name, and sets it up.
pub(crate) fn open(
    namespace: &Namespace,
    netlink: &mut Netlink,
    name: &InterfaceName,
    queues: u16,
) -> Result<Tap> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let index = link::by_name(netlink, name)
        .and_then(|found| Ok(found.ok_or_else(gone)?.index))
        .map_err(io("look for the macvtap", name))?;
    let queues = namespace
        .run_io(|| open_queues(name, index, queues))
        .map_err(io("open the macvtap", name))?;
    let set_up = |netlink: &mut Netlink| {
        link::silence_ipv6(netlink, index)?;
        link::raise(netlink, index, None)
    };
    set_up(netlink).map_err(io("set up the macvtap", name))?;
    Ok(Tap::of(name.clone(), index, queues))
}

fn open_queues(name: &InterfaceName, index: u32, queues: u16) -> io::Result<Vec<OwnedFd>> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if queues > 1 {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let (major, minor) = numbers(name, index)?;
    // Whether there is a `/dev`, who fills it and under which names is nothing to rely on. In a
    // mount of our own that is nowhere, the device is what we make it, and nothing of it stays.
    let directory = unseen_mount("tmpfs")?;
    let mode = Mode::RUSR | Mode::WUSR;
    let device = makedev(major, minor);
    mknodat(&directory, "tap", FileType::CharacterDevice, mode, device)?;
    (0..queues)
        .map(|_| {
            let flags_of_file = OFlags::RDWR | OFlags::CLOEXEC;
            let queue = openat(&directory, "tap", flags_of_file, Mode::empty())?;
            ioctl::set_interface(queue.as_fd(), name, flags)?;
            Ok(queue)
        })
        .collect()
}

/// The numbers of the device. A `sysfs` shows the links of the namespace in which it was mounted.
fn numbers(name: &InterfaceName, index: u32) -> io::Result<(u32, u32)> {
    let sysfs = unseen_mount("sysfs")?;
    let path = format!("class/net/{name}/macvtap/tap{index}/dev");
    let file = openat(
        &sysfs,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut text = [0; NUMBERS_BYTES_MAX];
    let length = io::Read::read(&mut File::from(file), &mut text)?;
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    let numbers = text
        .trim()
        .split_once(':')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text))
}

/// A file system that is mounted nowhere, and ends with its descriptor.
fn unseen_mount(kind: &str) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}
