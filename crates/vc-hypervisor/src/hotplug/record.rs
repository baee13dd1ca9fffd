use serde::{Deserialize, Serialize};

use super::{HotDevice, HotDeviceKind, PlugPhase, Plugged};
use crate::qemu::{NicPlace, nic_places, port_pci_path};
use crate::{Error, Growth, Result, VmSpec, nic};

/// The root ports of a VM and what is behind them, by the account of the host: what a guest says
/// or does changes nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotPlugRecord {
    /// How many ports there are.
    ports: u8,
    /// Ids, serial numbers and MACs of the devices that are there from the start.
    from_start: Vec<String>,
    /// Each on a port of its own.
    devices: Vec<Entry>,
    /// None in what an older version has stored.
    #[serde(default)]
    growth: Option<Growth>,
}

/// A device behind a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    port: u8,
    /// What no other device may have; its id first.
    names: Vec<String>,
    kind: HotDeviceKind,
    /// How many descriptors were passed for it.
    descriptors: usize,
    phase: PlugPhase,
}

/// What must be known of a device to take it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) port: u8,
    pub(crate) kind: HotDeviceKind,
    pub(crate) descriptors: usize,
}

impl Entry {
    fn id(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    fn place(&self) -> Place {
        Place {
            port: self.port,
            kind: self.kind,
            descriptors: self.descriptors,
        }
    }

    fn seen(&self) -> Plugged {
        Plugged {
            id: self.id().to_owned(),
            kind: self.kind,
            pci_path: port_pci_path(self.port.into()),
            phase: self.phase,
        }
    }
}

impl HotPlugRecord {
    /// The record of a VM that is about to be launched.
    pub(crate) fn of(spec: &VmSpec) -> Self {
        let movable = spec.nics.iter().map(|nic| nic.backend.can_be_unplugged());
        let mut from_start = Vec::new();
        let mut devices = Vec::new();
        for (nic, place) in spec.nics.iter().zip(nic_places(movable, spec.root_ports)) {
            let names = vec![nic.id.clone(), nic::mac_text(nic.mac)];
            match place {
                NicPlace::Fixed(_) => from_start.extend(names),
                NicPlace::Port(port) => devices.push(Entry {
                    port,
                    names,
                    kind: HotDeviceKind::Nic,
                    // QEMU has them by its command line.
                    descriptors: 0,
                    phase: PlugPhase::Present,
                }),
            }
        }
        let disks = spec.disks.iter().map(|disk| disk.serial.clone());
        Self {
            ports: spec.root_ports,
            from_start: from_start.into_iter().chain(disks).collect(),
            devices,
            growth: Some(spec.growth()),
        }
    }

    /// Between which sizes the VM can be.
    pub(crate) fn growth(&self) -> Option<Growth> {
        self.growth
    }

    /// The port behind which memory is.
    pub(crate) fn memory_port(&self) -> Option<u8> {
        let mut entries = self.devices.iter();
        let memory = entries
            .find(|entry| entry.kind == HotDeviceKind::Memory && entry.phase == PlugPhase::Present);
        memory.map(|entry| entry.port)
    }

    /// Takes the lowest free port for a device.
    pub(crate) fn reserve(&mut self, device: &HotDevice) -> Result<Plugged> {
        let names = device.names();
        let taken = |name: &&String| {
            let others = self.devices.iter().flat_map(|entry| &entry.names);
            others.chain(&self.from_start).any(|other| other == *name)
        };
        if let Some(name) = names.iter().find(taken) {
            return Err(Error::DeviceKnown {
                id: device.id().to_owned(),
                name: name.clone(),
            });
        }
        let is_free = |port: &u8| !self.devices.iter().any(|entry| entry.port == *port);
        let Some(port) = (0..self.ports).find(is_free) else {
            return Err(Error::NoFreePort {
                id: device.id().to_owned(),
                ports: self.ports,
            });
        };
        let entry = Entry {
            port,
            names,
            kind: device.kind(),
            descriptors: device.descriptors().len(),
            phase: PlugPhase::Coming,
        };
        let seen = entry.seen();
        self.devices.push(entry);
        Ok(seen)
    }

    /// The place of a device that is to be plugged in now: reserved before, or reserved here.
    pub(crate) fn begin(&mut self, device: &HotDevice) -> Result<Place> {
        let reserved = self.devices.iter().find(|entry| {
            entry.phase == PlugPhase::Coming
                && entry.names == device.names()
                && entry.kind == device.kind()
                && entry.descriptors == device.descriptors().len()
        });
        if let Some(entry) = reserved {
            return Ok(entry.place());
        }
        self.reserve(device)?;
        self.place(device.id())
    }

    /// The place of a device.
    pub(crate) fn place(&self, id: &str) -> Result<Place> {
        let entry = self.devices.iter().find(|entry| entry.id() == id);
        entry
            .map(Entry::place)
            .ok_or_else(|| Error::NoDevice { id: id.to_owned() })
    }

    /// Notes how far a device is, and says what is known of it.
    pub(crate) fn set_phase(&mut self, id: &str, phase: PlugPhase) -> Result<Plugged> {
        let mut entries = self.devices.iter_mut();
        match entries.find(|entry| entry.id() == id) {
            Some(entry) => {
                entry.phase = phase;
                Ok(entry.seen())
            }
            None => Err(Error::NoDevice { id: id.to_owned() }),
        }
    }

    /// The device is gone: its port is free.
    pub(crate) fn free(&mut self, id: &str) {
        self.devices.retain(|entry| entry.id() != id);
    }

    /// Every device behind a port, in the order in which they came: first the network devices that
    /// were there from the start and can be taken out.
    pub fn plugged(&self) -> Vec<Plugged> {
        self.devices.iter().map(Entry::seen).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disk, Nic, NicBackend, mock};

    fn disk(serial: &str) -> HotDevice {
        HotDevice::Disk(Disk {
            image: mock::null().unwrap(),
            serial: serial.into(),
            read_only: false,
            scratch: false,
        })
    }

    fn nic(id: &str, last: u8) -> Nic {
        Nic {
            id: id.into(),
            mac: [2, 0, 0, 0, 0, last],
            queues: 1,
            backend: NicBackend::Tap {
                fds: vec![mock::null().unwrap()],
                vhost_fds: Vec::new(),
            },
        }
    }

    fn record(ports: u8) -> HotPlugRecord {
        let mut spec = mock::spec("web1").unwrap();
        spec.root_ports = ports;
        spec.nics = vec![Nic {
            backend: NicBackend::User {
                forwards: Vec::new(),
                ipv6: true,
                filter: None,
            },
            ..nic("eth0", 1)
        }];
        HotPlugRecord::of(&spec)
    }

    #[test]
    fn a_tap_of_the_start_is_behind_a_port_and_can_go() {
        let mut spec = mock::spec("web1").unwrap();
        spec.root_ports = 3;
        spec.nics = vec![nic("net0", 1), nic("net1", 2), nic("net2", 3)];
        let mut record = HotPlugRecord::of(&spec);
        let paths = record.plugged().into_iter().map(|one| one.pci_path);
        assert_eq!(paths.collect::<Vec<_>>(), ["1b.0/00", "1b.1/00"]);
        // The last port is left for what comes, and net2 stays.
        assert!(record.place("net2").is_err());
        assert_eq!(record.reserve(&disk("a")).unwrap().pci_path, "1b.2/00");
        assert!(
            record.reserve(&HotDevice::Nic(nic("new", 1))).is_err(),
            "its MAC"
        );
        assert_eq!(record.place("net0").unwrap().descriptors, 0);
        record.free("net0");
        let device = HotDevice::Nic(nic("new", 1));
        assert_eq!(record.reserve(&device).unwrap().pci_path, "1b.0/00");
    }

    #[test]
    fn the_lowest_free_port_is_taken_and_a_full_vm_refuses_by_name() {
        let mut record = record(2);
        let path = |record: &mut HotPlugRecord, id| record.reserve(&disk(id)).unwrap().pci_path;
        assert_eq!(path(&mut record, "a"), "1b.0/00");
        assert_eq!(path(&mut record, "b"), "1b.1/00");
        let before = record.clone();
        let error = record.reserve(&disk("c")).unwrap_err();
        assert!(matches!(error, Error::NoFreePort { ports: 2, .. }));
        assert!(error.to_string().contains('c'), "{error}");
        assert_eq!(record, before);
        record.set_phase("a", PlugPhase::Leaving).unwrap();
        assert!(record.reserve(&disk("c")).is_err(), "it may still be there");
        record.free("a");
        assert_eq!(path(&mut record, "c"), "1b.0/00");
        assert!(record.place("a").is_err());
    }

    #[test]
    fn no_name_is_there_twice() {
        let mut record = record(8);
        record.reserve(&disk("a")).unwrap();
        let mut refused = |device: HotDevice| record.reserve(&device).unwrap_err().to_string();
        assert!(refused(disk("a")).contains("\"a\""));
        assert!(refused(disk("eth0")).contains("eth0"));
        assert!(refused(HotDevice::Nic(nic("a", 9))).contains("\"a\""));
        let same_mac = refused(HotDevice::Nic(nic("eth1", 1)));
        assert!(same_mac.contains("02:00:00:00:00:01"), "{same_mac}");
        assert_eq!(record.plugged().len(), 1);
    }

    #[test]
    fn a_reservation_is_used_once_and_survives_being_stored() {
        let mut record = record(2);
        let reserved = record.reserve(&disk("a")).unwrap();
        let text = serde_json::to_string(&record).unwrap();
        let mut record: HotPlugRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(record.plugged(), [reserved]);
        assert_eq!(record.begin(&disk("a")).unwrap().port, 0);
        let wrong_kind = Nic {
            id: "a".into(),
            ..nic("", 3)
        };
        assert!(record.begin(&HotDevice::Nic(wrong_kind)).is_err());
        record.set_phase("a", PlugPhase::Present).unwrap();
        assert!(record.begin(&disk("a")).is_err());
        assert_eq!(record.begin(&disk("b")).unwrap().port, 1);
    }
}
