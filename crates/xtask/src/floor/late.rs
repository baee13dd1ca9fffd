//! What a clone has and its template had not, as the command lines of a clone and of a machine that
//! booted tell it.
//!
//! QEMU 7.2 neither saves nor loads a vsock or a file system that another process serves. A template has none,
//! and a clone gets them at a root port of its own, once its state is loaded.

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::machine::{Machine, part, value};

/// The root port at which a clone gets its devices, by its name.
const PORT: &str = "late";

/// Properties that are numbers. All others are strings.
const NUMBERS: [&str; 1] = ["queue-size"];

/// What a clone's back ends are called.
const BACKENDS: [&str; 2] = ["vsock", "share0"];

impl Machine {
    /// The machine of the template from which a clone like this goes on. Its guest boots, and as in
    /// `booted` it is told what it would have to measure otherwise.
    pub(super) fn template(&self, booted: &Self) -> Self {
        let mut args = Vec::new();
        let mut given = self.args.iter().map(String::as_str);
        while let Some(option) = given.next() {
            match option {
                // It waits for no state.
                "-S" => {}
                "-incoming" => {
                    given.next();
                }
                "-chardev" => {
                    let chardev = given.next().unwrap_or_default();
                    let id = part(chardev, "id=").unwrap_or_default();
                    if !BACKENDS.contains(&id) {
                        args.extend([option.to_owned(), chardev.to_owned()]);
                    }
                }
                "-append" => {
                    let own = given.next().unwrap_or_default();
                    args.extend([option.to_owned(), parameters(own, booted)]);
                }
                _ => args.push(option.to_owned()),
            }
        }
        let mut template = self.clone();
        template.args = args;
        template
    }

    /// The arguments of `device_add` for what this clone gets, in their order: what `booted` has had
    /// from its start and the clone has not.
    pub(super) fn late_devices(&self, booted: &Self) -> Vec<Value> {
        let own: Vec<_> = self.devices().collect();
        let late: Vec<_> = booted.devices().filter(|it| !own.contains(it)).collect();
        // The first one last: with it, all functions of the device are there.
        let numbered = late.into_iter().enumerate().rev();
        numbered.map(|(function, it)| plug(it, function)).collect()
    }

    /// Where that root port is on the root bus, as the guest's kernel names it: slot and function.
    pub(super) fn late_bridge(&self) -> Result<String> {
        let port = self.devices().find(|it| part(it, "id=") == Some(PORT));
        let slot = port.and_then(|it| part(it, "addr=0x"));
        let slot = slot.context("the clone has no root port for what it gets")?;
        Ok(format!("{slot}.0"))
    }

    fn devices(&self) -> impl Iterator<Item = &str> {
        let pairs = self.args.windows(2).filter(|pair| pair[0] == "-device");
        pairs.map(|pair| pair[1].as_str())
    }
}

/// The kernel parameters of a machine that booted, and those of a clone that it has not.
fn parameters(of_clone: &str, booted: &Machine) -> String {
    let of_booted = value(&booted.args, "-append").unwrap_or_default();
    let known: Vec<_> = of_booted.split(' ').collect();
    let more = of_clone.split(' ').filter(|word| !known.contains(word));
    known
        .iter()
        .copied()
        .chain(more)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A device of a command line as it is plugged in, as a function of the one behind the port.
fn plug(device: &str, function: usize) -> Value {
    let (driver, properties) = device.split_once(',').unwrap_or((device, ""));
    let mut arguments = Map::new();
    for (name, value) in properties.split(',').filter_map(|it| it.split_once('=')) {
        let number = value.parse::<u64>().ok();
        let value = match number.filter(|_| NUMBERS.contains(&name)) {
            Some(number) => number.into(),
            None => value.into(),
        };
        arguments.insert(name.to_owned(), value);
    }
    let place: [(&str, Value); 5] = [
        ("driver", driver.into()),
        ("id", format!("{PORT}{function}").into()),
        ("bus", PORT.into()),
        ("addr", format!("0.{function}").into()),
        ("multifunction", true.into()),
    ];
    arguments.extend(place.map(|(name, value)| (name.to_owned(), value)));
    arguments.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CLONE: &str = "-device pcie-root-port,id=late,bus=pcie.0,addr=0x0b -incoming defer -S \
        -chardev socket,id=template,fd=9 -chardev socket,id=vsock,fd=10 -blockdev driver=file \
        -chardev socket,id=share0,fd=12 -device virtio-rng-pci,addr=0x01 \
        -device virtio-blk-pci,drive=disk0,bus=pcie.0,addr=0x03";
    const BOOTED: &str = "-device virtio-rng-pci,addr=0x01 \
        -device virtio-blk-pci,drive=disk0,bus=pcie.0,addr=0x03 \
        -device vhost-user-vsock-pci,chardev=vsock,bus=pcie.0,addr=0x02 \
        -device vhost-user-fs-pci,chardev=share0,tag=t,queue-size=1024,bus=pcie.0,addr=0x0b";

    #[test]
    fn a_template_waits_for_nothing_and_has_nothing_that_others_serve() {
        let template = Machine::with_args(CLONE).template(&Machine::with_args(BOOTED));
        assert_eq!(
            template.args.join(" "),
            "-device pcie-root-port,id=late,bus=pcie.0,addr=0x0b \
             -chardev socket,id=template,fd=9 -blockdev driver=file -device virtio-rng-pci,addr=0x01 \
             -device virtio-blk-pci,drive=disk0,bus=pcie.0,addr=0x03"
        );
    }

    #[test]
    fn a_templates_kernel_is_told_what_that_of_a_booted_machine_is() {
        let told = |parameters: &str| {
            let mut machine = Machine::with_args("");
            machine.args = vec!["-append".into(), parameters.into()];
            machine
        };
        let clone = told("quiet nr_uarts=1 nr_uarts=2");
        let booted = told("quiet nr_uarts=1 tsc_early_khz=7");
        assert_eq!(
            clone.template(&booted).args,
            ["-append", "quiet nr_uarts=1 tsc_early_khz=7 nr_uarts=2"]
        );
    }

    #[test]
    fn what_a_booted_machine_has_besides_is_plugged_in_and_function_0_last() {
        let late = Machine::with_args(CLONE).late_devices(&Machine::with_args(BOOTED));
        let place = |function| {
            json!({
                "id": format!("late{function}"),
                "bus": "late",
                "addr": format!("0.{function}"),
                "multifunction": true,
            })
        };
        let with = |mut device: Value, place: Value| {
            for (name, value) in place.as_object().unwrap() {
                device[name] = value.clone();
            }
            device
        };
        let share = json!({"driver": "vhost-user-fs-pci", "chardev": "share0", "tag": "t", "queue-size": 1024});
        let vsock = json!({"driver": "vhost-user-vsock-pci", "chardev": "vsock"});
        assert_eq!(late, [with(share, place(1)), with(vsock, place(0))]);
        assert_eq!(Machine::with_args(CLONE).late_bridge().unwrap(), "0b.0");
        assert!(Machine::with_args(BOOTED).late_bridge().is_err());
    }
}
