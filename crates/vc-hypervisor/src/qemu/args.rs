//! QEMU's command line and the descriptors that it names: pure data made of a [`VmSpec`].

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use vc_launch::PassedFd;
use vc_types::{SandboxId, guest};

use super::accel;
use super::device::Device;
use super::late::{self, Late};
use super::nic::nic_places;
use super::resize;
use crate::hotplug::DiskFile;
use crate::{Accelerator, Disk, Growth, ServedTypes, Share, VmSpec, Vsock};

/// The first descriptor number after standard input, output and error.
const FIRST_DESCRIPTOR: i32 = 3;

/// Where devices are on the root bus. Slot 0 is the host bridge, slot 31 the chip set.
pub(super) mod slot {
    pub(super) const RNG: usize = 0x01;
    pub(super) const VSOCK: usize = 0x02;
    pub(super) const FIRST_DISK: usize = 0x03;
    pub(in crate::qemu) const FIRST_SHARE: usize = 0x0b;
    /// Of shares that a template has, too: it has the first place for what comes later.
    pub(super) const FIRST_SHARE_BY_CLASS: usize = FIRST_SHARE + 1;
    pub(in crate::qemu) const FIRST_NIC: usize = 0x13;
    pub(super) const FIRST_ROOT_PORT: usize = 0x1b;
}

/// Network devices and root ports are the functions of their slots, so that many take few slots.
pub(super) const FUNCTIONS_PER_SLOT: usize = 8;

/// Kernel parameters of a template: its second serial port, and that it waits there; and that our own kernel
/// fills what it frees after the boot with zeros, which are not kept.
const TEMPLATE_PARAMS: [&str; 3] = [
    "8250.nr_uarts=2",
    "virtc.template_port=ttyS1",
    "initmem.fill=zero",
];

/// QEMU's command line.
#[derive(Debug)]
pub(super) struct CommandLine {
    /// The arguments after the program's name.
    pub(super) args: Vec<String>,
    /// The descriptors that they name.
    pub(super) fds: Vec<PassedFd>,
    /// What a clone gets once its state is loaded. A VM that boots has it on its command line.
    pub(super) late: Option<Late>,
}

/// What the driver itself shares with QEMU.
#[derive(Debug)]
pub(super) struct DriverFds {
    /// QEMU's end of the event connection.
    pub(super) events: OwnedFd,
    /// The listening command socket.
    pub(super) commands: OwnedFd,
    /// The pipe that takes the guest's console.
    pub(super) console: OwnedFd,
}

/// What depends on the host and the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostPart<'a> {
    pub(super) firmware: &'a Path,
    pub(super) tcg: accel::Tcg,
    /// Kernel parameters before those of the [`VmSpec`].
    pub(super) kernel_params: &'a [String],
}

/// The machine: the same in a template and in its clones. Of what serves one sandbox it has at most the
/// connections to devices that a template has, too.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) sandbox: SandboxId,
    pub(super) accelerator: Accelerator,
    pub(super) growth: Growth,
    pub(super) kernel: OwnedFd,
    pub(super) initrd: OwnedFd,
    pub(super) kernel_params: Vec<String>,
    pub(super) root_ports: u8,
    /// What a template has besides, and its clones.
    pub(super) of_template: Option<TemplateFds>,
    /// The scratch disk of a template and its clones, with its place among the disks.
    pub(super) disk: Option<(usize, Disk)>,
    /// The devices that processes serve, where a template can have them.
    pub(super) served: Option<Served>,
}

/// The connections to what serves devices that the guest knows by their class.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) vsock: OwnedFd,
    pub(super) shares: Vec<Share>,
}

/// What a template and its clones share with the driver.
#[derive(Debug)]
pub(super) struct TemplateFds {
    /// The file of its memory, which is QEMU's own otherwise.
    pub(super) memory: OwnedFd,
    /// The serial port at which its guest waits.
    pub(super) port: OwnedFd,
}

impl Machine {
    /// The one from which VMs like this can go on.
    pub(super) fn template_for(
        spec: &VmSpec,
        of_template: TemplateFds,
        scratch: Option<OwnedFd>,
        served: Option<Served>,
    ) -> io::Result<Self> {
        let like = spec.disk_of_template();
        let disk = like.zip(scratch).map(|((index, disk), image)| {
            let serial = disk.serial.clone();
            let (read_only, scratch) = (disk.read_only, disk.scratch);
            let disk = Disk {
                image,
                serial,
                read_only,
                scratch,
            };
            (index, disk)
        });
        Ok(Self {
            disk,
            served,
            sandbox: spec.sandbox.clone(),
            accelerator: spec.accelerator,
            growth: spec.growth(),
            kernel: spec.kernel.try_clone()?,
            initrd: spec.initrd.try_clone()?,
            kernel_params: spec.kernel_params.clone(),
            root_ports: spec.root_ports,
            of_template: Some(of_template),
        })
    }
}

/// Makes the command line of `spec`, as that of a clone where there are [`TemplateFds`].
pub(super) fn command_line(
    spec: VmSpec,
    driver: DriverFds,
    host: HostPart<'_>,
    of_template: Option<TemplateFds>,
) -> CommandLine {
    let is_clone = of_template.is_some();
    let by_class = spec.serves_by_class();
    let growth = spec.growth();
    let with_template = spec.disk_of_template().map(|(index, _)| index);
    let with_template = with_template.filter(|_| is_clone);
    let disks = spec.disks.into_iter().enumerate();
    let (mut early, late): (Vec<_>, Vec<_>) =
        disks.partition(|(index, _)| Some(*index) == with_template);
    let (served, vsock, shares) = match spec.vsock {
        Vsock::VhostUser { socket: vsock, .. } if by_class => {
            let shares = spec.shares;
            (Some(Served { vsock, shares }), None, Vec::new())
        }
        vsock => (None, Some(vsock), spec.shares),
    };
    let machine = Machine {
        disk: early.pop(),
        served,
        growth,
        sandbox: spec.sandbox,
        accelerator: spec.accelerator,
        kernel: spec.kernel,
        initrd: spec.initrd,
        kernel_params: spec.kernel_params,
        root_ports: spec.root_ports,
        of_template,
    };
    let mut line = CommandLine::of(machine, driver, host);
    if is_clone {
        // The state comes by a command, and the processors wait for one.
        line.option("-incoming", "defer".into());
        line.args.push("-S".into());
        line.late = Some(Late::default());
    }
    // A clone finds what its template has not when it goes on.
    if let Some(vsock) = vsock {
        line.vsock(vsock);
    }
    for (index, disk) in late {
        line.disk(index, disk);
    }
    for (index, share) in shares.into_iter().enumerate() {
        let device = line.share(index, share, ServedTypes::ByNumber);
        line.own(device, slot::FIRST_SHARE + index);
    }
    let movable = spec.nics.iter().map(|nic| nic.backend.can_be_unplugged());
    let places = nic_places(movable, spec.root_ports);
    if let Some(late) = &mut line.late {
        late.nic_places.clone_from(&places);
    }
    for (place, nic) in places.into_iter().zip(spec.nics) {
        line.nic(place, nic);
    }
    line
}

impl CommandLine {
    /// The machine alone: all of a template's command line.
    pub(super) fn of(machine: Machine, driver: DriverFds, host: HostPart<'_>) -> Self {
        let mut line = Self {
            args: Vec::new(),
            fds: Vec::new(),
            late: None,
        };
        line.confinement(&machine.sandbox);
        line.machine(&machine, host.tcg);
        let (memory, port) = machine.of_template.map(|of| (of.memory, of.port)).unzip();
        line.memory(machine.growth, memory);
        line.control(driver);
        line.option("-bios", host.firmware.display().to_string());
        let (kernel, initrd) = (line.pass(machine.kernel), line.pass(machine.initrd));
        line.option("-kernel", format!("/proc/self/fd/{kernel}"));
        line.option("-initrd", format!("/proc/self/fd/{initrd}"));
        let mut append = host.kernel_params.to_vec();
        append.extend(resize::kernel_params(machine.growth, machine.accelerator));
        append.extend(machine.served.is_some().then(type_by_class));
        append.extend(machine.kernel_params);
        if let Some(port) = port {
            line.template_port(port);
            line.late_port();
            append.extend(TEMPLATE_PARAMS.map(str::to_owned));
        }
        line.option("-append", append.join(" "));
        line.device(format!(
            "virtio-rng-pci,disable-legacy=on,{}",
            address(slot::RNG)
        ));
        for port in 0..usize::from(machine.root_ports) {
            line.root_port(port);
        }
        if let Some((index, disk)) = machine.disk {
            line.disk(index, disk);
        }
        if let Some(served) = machine.served {
            line.served(served);
        }
        line
    }

    /// QEMU starts nothing, opens nothing by itself, and shows itself under the sandbox's name.
    fn confinement(&mut self, sandbox: &SandboxId) {
        self.option("-name", format!("{sandbox},debug-threads=on"));
        self.args.extend(
            [
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-sandbox",
                "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            ]
            .map(str::to_owned),
        );
    }

    fn machine(&mut self, spec: &Machine, tcg: accel::Tcg) {
        self.option(
            "-machine",
            "q35,memory-backend=memory,graphics=off,usb=off,sata=off,smbus=off,i8042=off,hpet=off,\
             smm=off,vmport=off,dump-guest-core=off,mem-merge=off"
                .into(),
        );
        for (name, value) in accel::args(spec.accelerator, tcg) {
            self.option(name, value);
        }
        let Growth { first, largest } = spec.growth;
        let (vcpus, most) = (first.vcpus, largest.vcpus);
        self.option(
            "-smp",
            match most > vcpus {
                true => format!("{vcpus},maxcpus={most}"),
                false => vcpus.to_string(),
            },
        );
        // The reason of an end is in an event; a reset is an end.
        self.args.push("-no-reboot".into());
        self.option("-action", "reboot=shutdown,panic=exit-failure".into());
        self.device("pvpanic".into());
        // ACPI's hot-plug knows no pause of 100 ms for a person's hand, as PCI Express's does.
        self.option(
            "-global",
            "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on".into(),
        );
    }

    /// Device processes map the guest's memory, so it must be a file that is shared.
    fn memory(&mut self, growth: Growth, file: Option<OwnedFd>) {
        let (mib, most) = (growth.first.memory.mib(), growth.largest.memory.mib());
        self.option(
            "-m",
            match most > mib {
                true => format!("{mib}M,slots=1,maxmem={most}M"),
                false => format!("{mib}M"),
            },
        );
        let backend = match file {
            None => format!("memory-backend-memfd,id=memory,size={mib}M,share=on"),
            Some(file) => {
                let fd = self.pass(file);
                format!(
                    "memory-backend-file,id=memory,size={mib}M,share=on,mem-path=/proc/self/fd/{fd}"
                )
            }
        };
        self.option("-object", backend);
    }

    /// The second serial port.
    fn template_port(&mut self, port: OwnedFd) {
        let fd = self.pass(port);
        self.option("-chardev", format!("socket,id=template,fd={fd}"));
        self.option("-serial", "chardev:template".into());
    }

    fn control(&mut self, driver: DriverFds) {
        let events = self.pass(driver.events);
        self.option("-chardev", format!("socket,id=events,fd={events}"));
        self.option("-mon", "chardev=events,mode=control".into());
        let commands = self.pass(driver.commands);
        self.option(
            "-chardev",
            format!("socket,id=commands,fd={commands},server=on,wait=off"),
        );
        self.option("-mon", "chardev=commands,mode=control".into());
        let console = self.fd_set(driver.console);
        self.option(
            "-chardev",
            format!("file,id=console,path={console},append=on"),
        );
        self.option("-serial", "chardev:console".into());
    }

    /// What the guest knows by its class: all of it is there from the start, in a clone too.
    fn served(&mut self, served: Served) {
        let types = ServedTypes::ByClass;
        let vsock = self.vsock_of_process(served.vsock, types);
        self.device(vsock.argument(&address(slot::VSOCK)));
        for (index, share) in served.shares.into_iter().enumerate() {
            let device = self.share(index, share, types);
            self.device(device.argument(&address(slot::FIRST_SHARE_BY_CLASS + index)));
        }
    }

    fn vsock_of_process(&mut self, socket: OwnedFd, types: ServedTypes) -> Device {
        let fd = self.pass(socket);
        self.option("-chardev", format!("socket,id=vsock,fd={fd}"));
        Device::vsock("vsock", types)
    }

    fn vsock(&mut self, vsock: Vsock) {
        match vsock {
            Vsock::VhostUser { socket, .. } => {
                let device = self.vsock_of_process(socket, ServedTypes::ByNumber);
                self.own(device, slot::VSOCK);
            }
            Vsock::Vhost { device, cid } => {
                let fd = self.pass(device);
                let at = address(slot::VSOCK);
                self.device(format!(
                    "vhost-vsock-pci,guest-cid={cid},vhostfd={fd},disable-legacy=on,{at}"
                ));
            }
            // Refused before, by `VmSpec::check`: QEMU has none of its own.
            Vsock::Own { .. } => {}
        }
    }

    fn disk(&mut self, index: usize, disk: Disk) {
        // What is neither a file nor a block device QEMU refuses.
        let driver = match DiskFile::of(&disk) {
            Ok(DiskFile::BlockDevice) => "host_device",
            Ok(DiskFile::Regular) | Err(_) => "file",
        };
        let Disk {
            image,
            serial,
            read_only,
            scratch,
        } = disk;
        let file = self.fd_set(image);
        let (read_only, no_flush) = (on_off(read_only), on_off(scratch));
        // The image is this VM's own, so no lock says so.
        self.option(
            "-blockdev",
            format!(
                "driver={driver},node-name=disk{index},filename={file},locking=off,\
                 read-only={read_only},discard=unmap,cache.direct=off,cache.no-flush={no_flush}"
            ),
        );
        let device = Device::disk(&format!("disk{index}"), &serial);
        self.own(device, slot::FIRST_DISK + index);
    }

    fn share(&mut self, index: usize, share: Share, types: ServedTypes) -> Device {
        let fd = self.pass(share.socket);
        self.option("-chardev", format!("socket,id=share{index},fd={fd}"));
        Device::share(&format!("share{index}"), &share.tag, types)
    }

    /// A device that a template has not.
    fn own(&mut self, device: Device, slot: usize) {
        match &mut self.late {
            Some(late) => late.devices.push(device),
            None => self.device(device.argument(&address(slot))),
        }
    }

    /// The place of what a template has not, and a clone gets before it goes on: as functions of one
    /// device.
    fn late_port(&mut self) {
        let at = address(late::SLOT);
        self.device(format!(
            "pcie-root-port,id={},chassis={},io-reserve=0,{at}",
            late::PORT,
            late::CHASSIS
        ));
    }

    fn root_port(&mut self, port: usize) {
        let (slot, function) = place(slot::FIRST_ROOT_PORT, port);
        let (id, chassis) = (port_id(port), port + 1);
        // Without an I/O window there is no limit of a handful of ports.
        self.device(format!(
            "pcie-root-port,id={id},chassis={chassis},multifunction=on,io-reserve=0,\
             bus=pcie.0,addr={slot:#04x}.{function}"
        ));
    }

    pub(super) fn option(&mut self, name: &str, value: String) {
        self.args.push(name.to_owned());
        self.args.push(value);
    }

    pub(super) fn device(&mut self, value: String) {
        self.option("-device", value);
    }

    /// Passes a descriptor; the result is its number in QEMU.
    pub(super) fn pass(&mut self, fd: OwnedFd) -> i32 {
        let number = FIRST_DESCRIPTOR + i32::try_from(self.fds.len()).unwrap_or(i32::MAX);
        self.fds.push(PassedFd::at(number, fd));
        number
    }

    /// Passes a descriptor where QEMU takes a path only; the result is that path.
    fn fd_set(&mut self, fd: OwnedFd) -> String {
        let number = self.pass(fd);
        self.option("-add-fd", format!("fd={number},set={number}"));
        format!("/dev/fdset/{number}")
    }
}

/// The slot and function of a device that is a function of its slot.
pub(super) fn place(first_slot: usize, index: usize) -> (usize, usize) {
    let slot = first_slot + index / FUNCTIONS_PER_SLOT;
    (slot, index % FUNCTIONS_PER_SLOT)
}

/// What QEMU calls the device behind a root port, its block node and its network back end.
pub(super) fn behind(port: u8) -> String {
    format!("hot{port}")
}

/// What QEMU calls a root port.
pub(super) fn port_id(port: usize) -> String {
    format!("port{port}")
}

/// Where the guest finds the device behind a root port: slot and function of the port on the root
/// bus, then the slot behind it, as the agent's calls have it.
///
/// ```
/// assert_eq!(vc_hypervisor::qemu::port_pci_path(0), "1b.0/00");
/// assert_eq!(vc_hypervisor::qemu::port_pci_path(11), "1c.3/00");
/// ```
pub fn port_pci_path(port: usize) -> String {
    let (slot, function) = place(slot::FIRST_ROOT_PORT, port);
    format!("{slot:02x}.{function}/00")
}

/// The kernel parameter by which devices that processes serve are known by their class.
fn type_by_class() -> String {
    format!("{}=1", guest::TYPE_BY_CLASS_PARAM)
}

fn address(slot: usize) -> String {
    format!("bus=pcie.0,addr={slot:#04x}")
}

pub(super) fn on_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

#[cfg(test)]
pub(super) mod tests;
