//! What a clone has and its template had not: plugged in once the state is loaded, since QEMU loads none while
//! it has a vsock device or a file system that another process serves.

use std::io;

use qapi::qmp;

use super::args::{FUNCTIONS_PER_SLOT, behind, port_id, slot};
use super::device::Device;
use super::nic::NicPlace;

/// The root port of a template and its clones for devices that stay.
pub(super) const PORT: &str = "late";

/// Its number as a chassis; those of the other root ports are lower.
pub(super) const CHASSIS: usize = 200;

/// Its slot on the root bus. A VM that boots has its shares there.
pub(super) const SLOT: usize = slot::FIRST_SHARE;

/// How many devices it has place for, as functions of one.
pub(super) const DEVICES_MAX: usize = FUNCTIONS_PER_SLOT;

/// Bytes of randomness that a clone begins with.
const SEED_BYTES: usize = 32;

/// What a clone gets.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Devices that stay.
    pub(super) devices: Vec<Device>,
    /// Network devices, each at the root port of this number: that was empty in the template, and is
    /// switched off as the state is loaded.
    pub(super) nics: Vec<(u8, Device)>,
    /// Where all network devices are, those included that a clone has from its start.
    pub(super) nic_places: Vec<NicPlace>,
}

impl Late {
    /// What the guest reads to go on: a seed of its own, before it draws a random number, and where
    /// to look for devices.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub(super) fn hand_over_line(&self) -> io::Result<String> {
        let mut seed = [0; SEED_BYTES];
        let got = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
        if got < SEED_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let seed: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{seed} {}\n", self.places().join(",")))
    }

    /// The bridges before the devices, `root` for everything, or `none`.
    fn places(&self) -> Vec<String> {
        let mut places = Vec::new();
        if !self.devices.is_empty() {
            places.push(format!("{SLOT:02x}.0"));
        }
        for nic in &self.nic_places {
            match nic {
                NicPlace::Port(_) => {
                    let path = nic.pci_path();
                    places.extend(path.split('/').next().map(str::to_owned));
                }
                NicPlace::Fixed(_) => return vec!["root".into()],
            }
        }
        if places.is_empty() {
            places.push("none".into());
        }
        places
    }

    /// The commands that plug everything in, in their order.
    pub(super) fn commands(self) -> Vec<qmp::device_add> {
        // The first one last: with it, all functions of the device are there.
        let devices = self.devices.into_iter().enumerate().rev();
        let devices = devices.map(|(function, device)| {
            device.plug(format!("{PORT}{function}"), PORT.to_owned(), Some(function))
        });
        let nics = self.nics.into_iter();
        let nics = nics.map(|(port, device)| device.plug(behind(port), port_id(port.into()), None));
        devices.chain(nics).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServedTypes;

    fn late(nic_places: Vec<NicPlace>) -> Late {
        Late {
            devices: vec![
                Device::vsock("vsock", ServedTypes::ByNumber),
                Device::disk("disk0", "7"),
            ],
            nics: vec![(3, Device::nic("hot3", [2, 0, 0, 0, 0, 7], 1))],
            nic_places,
        }
    }

    #[test]
    fn function_0_comes_last_and_network_devices_have_ports_of_their_own() {
        let commands = late(Vec::new()).commands();
        let lines: Vec<_> = commands
            .iter()
            .map(|c| serde_json::to_string(c).unwrap())
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_guest_looks_behind_the_ports_or_everywhere() {
        use NicPlace::{Fixed, Port};
        assert_eq!(late(Vec::new()).places(), ["0b.0"]);
        assert_eq!(
            late(vec![Port(0), Port(9)]).places(),
            ["0b.0", "1b.0", "1c.1"]
        );
        assert_eq!(late(vec![Port(0), Fixed(0)]).places(), ["root"]);
        let mut nothing = late(Vec::new());
        nothing.devices.clear();
        assert_eq!(nothing.places(), ["none"]);
        nothing.nic_places = vec![Port(9)];
        assert_eq!(nothing.places(), ["1c.1"]);
    }

    #[test]
    fn each_clone_has_a_seed_of_its_own() {
        let line = || late(Vec::new()).hand_over_line().unwrap();
        let (one, other) = (line(), line());
        assert_ne!(one, other);
        let (seed, places) = one.split_once(' ').unwrap();
        assert_eq!((seed.len(), places), (2 * SEED_BYTES, "0b.0\n"));
    }
}
