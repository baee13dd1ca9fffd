//! The QMP commands of devices behind root ports: pure data.

use qapi::qmp::{
    self, BlockdevOptions, BlockdevOptionsBase, BlockdevOptionsFile, MemoryBackendProperties,
    Netdev, ObjectOptions,
};
use vc_types::ByteSize;

use crate::Disk;
use crate::hotplug::DiskFile;
pub(super) use crate::qemu::args::behind as name;
use crate::qemu::args::port_id;
use crate::qemu::device::Device;

/// The numbers of descriptor sets begin here: those of the command line are lower.
const FIRST_FD_SET: i64 = 1_000;

fn fd_set(port: u8) -> i64 {
    FIRST_FD_SET + i64::from(port)
}

fn fd_name(port: u8, index: usize) -> String {
    format!("hot{port}-{index}")
}

pub(super) fn add_fd(port: u8) -> qmp::add_fd {
    qmp::add_fd {
        fdset_id: Some(fd_set(port)),
        opaque: None,
    }
}

pub(super) fn remove_fd(port: u8) -> qmp::remove_fd {
    qmp::remove_fd {
        fd: None,
        fdset_id: fd_set(port),
    }
}

pub(super) fn getfd(port: u8, index: usize) -> qmp::getfd {
    qmp::getfd {
        fdname: fd_name(port, index),
    }
}

pub(super) fn closefd(port: u8, index: usize) -> qmp::closefd {
    qmp::closefd {
        fdname: fd_name(port, index),
    }
}

pub(super) fn blockdev_add(port: u8, disk: &Disk, file: DiskFile) -> qmp::blockdev_add {
    let base = BlockdevOptionsBase {
        auto_read_only: None,
        cache: Some(qmp::BlockdevCacheOptions {
            direct: Some(false),
            no_flush: Some(disk.scratch),
        }),
        detect_zeroes: None,
        discard: Some(qmp::BlockdevDiscardOptions::unmap),
        force_share: None,
        node_name: Some(name(port)),
        read_only: Some(disk.read_only),
    };
    // The disk is this VM's own, so no lock says so.
    let options = BlockdevOptionsFile {
        aio: None,
        aio_max_batch: None,
        drop_cache: None,
        locking: Some(qmp::OnOffAuto::off),
        pr_manager: None,
        x_check_cache_dropped: None,
        filename: format!("/dev/fdset/{}", fd_set(port)),
    };
    qmp::blockdev_add(match file {
        DiskFile::Regular => BlockdevOptions::file {
            base,
            file: options,
        },
        DiskFile::BlockDevice => BlockdevOptions::host_device {
            base,
            host_device: options,
        },
    })
}

pub(super) fn blockdev_del(port: u8) -> qmp::blockdev_del {
    qmp::blockdev_del {
        node_name: name(port),
    }
}

pub(super) fn netdev_add(port: u8, queues: usize, vhost: usize) -> qmp::netdev_add {
    let names = |from: usize, count: usize| {
        let names: Vec<_> = (from..from + count)
            .map(|index| fd_name(port, index))
            .collect();
        names.join(":")
    };
    let has_vhost = vhost > 0;
    let (tap_names, vhost_names) = (names(0, queues), names(queues, vhost));
    let mut tap = qmp::NetdevTapOptions {
        vhost: Some(has_vhost),
        ..qmp::NetdevTapOptions::default()
    };
    // In the form for one, QEMU closes what it refuses. In that for many it does not.
    if queues == 1 {
        tap.fd = Some(tap_names);
        tap.vhostfd = has_vhost.then_some(vhost_names);
    } else {
        tap.fds = Some(tap_names);
        tap.vhostfds = has_vhost.then_some(vhost_names);
    }
    qmp::netdev_add(Netdev::tap {
        id: name(port),
        tap,
    })
}

pub(super) fn netdev_del(port: u8) -> qmp::netdev_del {
    qmp::netdev_del { id: name(port) }
}

/// The memory behind a port: a file that device processes map too, of which nothing is there
/// until the guest writes it.
pub(super) fn object_add(port: u8, size: ByteSize) -> qmp::object_add {
    let base = MemoryBackendProperties {
        dump: None,
        host_nodes: None,
        merge: None,
        policy: None,
        prealloc: None,
        prealloc_context: None,
        prealloc_threads: None,
        reserve: Some(false),
        share: Some(true),
        x_use_canonical_path_for_ramblock_id: None,
        size: size.bytes(),
    };
    qmp::object_add(ObjectOptions::memory_backend_memfd {
        id: name(port),
        memory_backend_memfd: base.into(),
    })
}

pub(super) fn object_del(port: u8) -> qmp::object_del {
    qmp::object_del { id: name(port) }
}

pub(super) fn memory(port: u8) -> qmp::device_add {
    plug(port, Device::memory(&name(port)))
}

/// A disk as the command line has it.
pub(super) fn disk(port: u8, serial: &str) -> qmp::device_add {
    plug(port, Device::disk(&name(port), serial))
}

/// A network device as the command line has it.
pub(super) fn nic(port: u8, mac: [u8; 6], queues: u16) -> qmp::device_add {
    plug(port, Device::nic(&name(port), mac, queues))
}

fn plug(port: u8, device: Device) -> qmp::device_add {
    device.plug(name(port), port_id(port.into()), None)
}

pub(super) fn device_del(port: u8) -> qmp::device_del {
    qmp::device_del { id: name(port) }
}
