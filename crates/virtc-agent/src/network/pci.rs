//! Where a device is on the PCI bus, and the network interface that it has.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::uevents::Uevents;

/// The root bus of the machine.
const ROOT_BUS: &str = "/sys/devices/pci0000:00";

/// How long an interface may take to appear: it may be plugged in while we ask.
const APPEAR_LIMIT: Duration = Duration::from_secs(20);

/// Bridges on the way to a device. The machine has one; the bus allows no more than these.
const DEPTH_MAX: usize = 16;

/// Slot and function on each bus, from the root bus on, as Kata has it: `02/00.1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PciPath {
    text: String,
    places: Vec<(u8, u8)>,
}

impl FromStr for PciPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid {
            field: "PCI path",
            value: text.to_owned(),
            reason: "must be slots of two digits in base 16, with \"/\" between",
        };
        let places: Option<Vec<_>> = text.split('/').map(place).collect();
        match places {
            Some(places) if places.len() <= DEPTH_MAX => Ok(Self {
                text: text.to_owned(),
                places,
            }),
            _ => Err(invalid()),
        }
    }
}

impl PciPath {
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

fn place(text: &str) -> Option<(u8, u8)> {
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let number = |text: &str, digits, max| {
        let is_plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u8::from_str_radix(text, 16).ok()?;
        (is_plain && number <= max).then_some(number)
    };
    Some((number(slot, 2, 31)?, number(function, 1, 7)?))
}

/// The index of the interface of a device, waited for when it is not there yet.
pub(super) fn wait_for_interface(path: &PciPath) -> Result<u32> {
    let root = Path::new(ROOT_BUS);
    if let Some(index) = find_interface(root, path) {
        return Ok(index);
    }
    // Listens before it looks again, so that one that comes in between is not missed.
    let events = Uevents::listen()?;
    events
        .wait_until(APPEAR_LIMIT, || find_interface(root, path))?
        .ok_or_else(|| Error::Timeout {
            what: format!("waiting for the network interface at {:?}", path.text),
            limit: APPEAR_LIMIT,
        })
}

fn find_interface(root: &Path, path: &PciPath) -> Option<u32> {
    let device = find_device(root, path)?;
    // A virtio device has a device of its own below, a physical one has not.
    // What is behind a bridge is its child too, and not meant.
    let children = entries(&device).filter(|child| {
        let name = child.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("virtio"))
    });
    let mut interfaces = [device.clone()]
        .into_iter()
        .chain(children)
        .flat_map(|parent| entries(&parent.join("net")).collect::<Vec<_>>());
    interfaces.find_map(|interface| {
        let index = fs::read_to_string(interface.join("ifindex")).ok()?;
        index.trim().parse().ok()
    })
}

/// The directory of the device: each bridge on the way names the bus behind it.
fn find_device(root: &Path, path: &PciPath) -> Option<PathBuf> {
    let mut directory = root.to_owned();
    let mut bus = root.file_name()?.to_str()?.strip_prefix("pci")?.to_owned();
    for (depth, (slot, function)) in path.places.iter().enumerate() {
        if depth > 0 {
            let behind = entries(&directory.join("pci_bus")).next()?;
            bus = behind.file_name()?.to_str()?.to_owned();
        }
        let mut name = bus.clone();
        write!(name, ":{slot:02x}.{function}").ok()?;
        directory.push(name);
    }
    directory.is_dir().then_some(directory)
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_slots_and_functions() {
        let path: PciPath = "02/1f.7/0a".parse().unwrap();
        assert_eq!(path.places, [(2, 0), (31, 7), (10, 0)]);
        let long = ["00"; DEPTH_MAX + 1].join("/");
        for text in [
            "", "2", "002", "20", "02.8", "02.", "02/", "/02", "0x02", "+2", "..", &long,
        ] {
            assert!(text.parse::<PciPath>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_interface_is_found_behind_bridges_and_below_virtio() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("pci0000:00");
        let make = |path: &str, index: &str| {
            let interface = root.join(path);
            fs::create_dir_all(&interface).unwrap();
            fs::write(interface.join("ifindex"), index).unwrap();
        };
        make("0000:00:13.1/virtio3/net/eth0", "2\n");
        make("0000:00:18.0/0000:01:00.0/net/enp1s0", "3\n");
        fs::create_dir_all(root.join("0000:00:18.0/pci_bus/0000:01")).unwrap();
        fs::create_dir_all(root.join("0000:00:03.0/virtio1/block")).unwrap();
        let find = |path: &str| find_interface(&root, &path.parse().unwrap());
        assert_eq!(find("13.1"), Some(2));
        assert_eq!(find("18/00"), Some(3));
        for nothing in ["13", "03", "18", "18/01", "13.1/00"] {
            assert_eq!(find(nothing), None, "{nothing}");
        }
    }
}
