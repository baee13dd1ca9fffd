//! Devices, as the command line has them and as they are plugged in.

use qapi::qmp;
use serde_json::Value;

use crate::ServedTypes;
use crate::nic::mac_text;

/// Types of devices, by their numbers (virtio 1.2, section 5).
const SOCKET_TYPE: u8 = 19;
const FILE_SYSTEM_TYPE: u8 = 26;

/// The class whose subclass is a type.
const CLASS_OF_TYPES: u32 = 0xff00;

/// Queues of a device, and entries of each.
#[derive(Clone, Copy, Debug)]
struct Queues {
    count: u16,
    entries: u16,
}

/// Those that QEMU's own vsock device has.
const SOCKET_QUEUES: Queues = Queues {
    count: 3,
    entries: 128,
};

/// One for requests, and one for what must not wait for them.
const FILE_SYSTEM_QUEUES: Queues = Queues {
    count: 2,
    entries: 1024,
};

/// A device without its place.
#[derive(Debug)]
pub(super) struct Device {
    driver: &'static str,
    properties: Vec<(&'static str, Value)>,
}

impl Device {
    /// The vsock device that the process at `chardev` serves.
    pub(super) fn vsock(chardev: &str, types: ServedTypes) -> Self {
        if types == ServedTypes::ByClass {
            return Self::by_class(SOCKET_TYPE, chardev, SOCKET_QUEUES);
        }
        Self {
            driver: "vhost-user-vsock-pci",
            properties: vec![("chardev", chardev.into()), ("disable-legacy", "on".into())],
        }
    }

    /// The file system that the process at `chardev` serves.
    pub(super) fn share(chardev: &str, tag: &str, types: ServedTypes) -> Self {
        if types == ServedTypes::ByClass {
            return Self::by_class(FILE_SYSTEM_TYPE, chardev, FILE_SYSTEM_QUEUES);
        }
        Self {
            driver: "vhost-user-fs-pci",
            properties: vec![
                ("chardev", chardev.into()),
                ("tag", tag.into()),
                ("queue-size", FILE_SYSTEM_QUEUES.entries.into()),
            ],
        }
    }

    /// A device of any type. Of those that processes serve, QEMU 7.2 saves and loads block devices alone;
    /// what it does itself for one is the same for all: its queues and its configuration are the process's.
    fn by_class(kind: u8, chardev: &str, queues: Queues) -> Self {
        Self {
            driver: "vhost-user-blk-pci",
            properties: vec![
                ("chardev", chardev.into()),
                ("class", (CLASS_OF_TYPES | u32::from(kind)).into()),
                ("num-queues", queues.count.into()),
                ("queue-size", queues.entries.into()),
                ("disable-legacy", "on".into()),
            ],
        }
    }

    /// The disk of a block node.
    pub(super) fn disk(node: &str, serial: &str) -> Self {
        Self {
            driver: "virtio-blk-pci",
            properties: vec![
                ("drive", node.into()),
                ("serial", serial.into()),
                ("disable-legacy", "on".into()),
                // An error is the guest's to know. Without this QEMU stops the whole machine when
                // the host's disk is full.
                ("werror", "report".into()),
                ("rerror", "report".into()),
            ],
        }
    }

    /// The memory of a back end, none of which the guest has at first.
    pub(super) fn memory(backend: &str) -> Self {
        Self {
            driver: "virtio-mem-pci",
            properties: vec![("memdev", backend.into())],
        }
    }

    /// The network device of a back end.
    pub(super) fn nic(netdev: &str, mac: [u8; 6], queues: u16) -> Self {
        let mut properties = vec![("netdev", netdev.into()), ("mac", mac_text(mac).into())];
        if queues > 1 {
            // A vector for each queue of a pair, one for changes and one for commands.
            properties.push(("mq", true.into()));
            properties.push(("vectors", (2 * u32::from(queues) + 2).into()));
        }
        properties.push(("disable-legacy", "on".into()));
        // Nothing boots from it, so QEMU need not open a boot program for it.
        properties.push(("romfile", "".into()));
        Self {
            driver: "virtio-net-pci",
            properties,
        }
    }

    /// As the command line has it, at this place.
    pub(super) fn argument(&self, at: &str) -> String {
        let mut text = self.driver.to_owned();
        for (name, value) in &self.properties {
            text.push_str(&match value {
                Value::String(value) => format!(",{name}={value}"),
                Value::Bool(value) => format!(",{name}={}", super::args::on_off(*value)),
                value => format!(",{name}={value}"),
            });
        }
        format!("{text},{at}")
    }

    /// As it is plugged in behind a root port. Of several at one, function 0 comes last.
    pub(super) fn plug(self, id: String, bus: String, function: Option<usize>) -> qmp::device_add {
        let place = match function {
            None => vec![("addr", "0x0".into())],
            Some(function) => vec![
                ("addr", format!("0.{function}").into()),
                ("multifunction", true.into()),
            ],
        };
        let properties = self.properties.into_iter().chain(place);
        let properties = properties.map(|(name, value)| (name.to_owned(), value));
        qmp::device_add::new(self.driver, id, bus, properties)
    }
}
