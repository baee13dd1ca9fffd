use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tokio::sync::oneshot;
use vc_types::{ByteSize, SandboxId, VmSize};

use crate::nic::{self, Nic};
use crate::{Accelerator, AgentAddress, Capabilities, Error, Growth, Result};

/// Bytes of a share's tag: the virtio-fs device has room for so many.
const TAG_BYTES_MAX: usize = 36;

/// Shares of a VM whose guest knows them by their class: a template keeps one place of shares for what
/// comes later.
pub(crate) const SHARES_BY_CLASS_MAX: usize = 7;

/// Bytes of a tag where the guest knows the share by its class: behind them, QEMU writes the number of queues
/// of what it takes for a disk, and one byte ends the tag.
const TAG_BYTES_BY_CLASS_MAX: usize = 33;

/// Bytes of a disk's serial number: the virtio block device has room for so many.
pub(crate) const SERIAL_BYTES_MAX: usize = 20;

/// One VM to launch: sizes, and an open descriptor for everything that it uses.
///
/// The descriptors are given away; the VMM gets them, and this process keeps none.
#[derive(Debug)]
pub struct VmSpec {
    /// Whose VM it is; it names the process in `ps`.
    pub sandbox: SandboxId,
    /// Where the driver may put sockets: the sandbox's own directory, closed to others.
    pub directory: PathBuf,
    /// Virtual processors.
    pub vcpus: u32,
    /// The guest's memory.
    pub memory: ByteSize,
    /// What it can grow to while it runs, never less than what it begins with; nothing where it keeps
    /// its size.
    pub largest: Option<VmSize>,
    /// What executes the guest's code.
    pub accelerator: Accelerator,
    /// The unpacked kernel. The VMM's user must be allowed to read the file.
    pub kernel: OwnedFd,
    /// The initrd. The VMM's user must be allowed to read the file.
    pub initrd: OwnedFd,
    /// Kernel parameters after the driver's own, so that these win.
    pub kernel_params: Vec<String>,
    /// File systems of the host.
    pub shares: Vec<Share>,
    /// The way to the agent.
    pub vsock: Vsock,
    /// How the guest learns what kind of device a share or the vsock is.
    pub served_types: ServedTypes,
    /// Block devices.
    pub disks: Vec<Disk>,
    /// A template has the scratch disk of `disks` too: its guest has it mounted, and the image of a VM
    /// that goes on from there is a copy of that one's.
    pub scratch_of_template: bool,
    /// Network devices, in the order in which the guest sees them.
    pub nics: Vec<Nic>,
    /// Free places for devices that come later.
    pub root_ports: u8,
    /// Takes the guest's console, [`CONSOLE_LOG_BYTES_MAX`](vc_types::limits::CONSOLE_LOG_BYTES_MAX)
    /// of it; open for reading and writing.
    pub console_log: File,
    /// Takes what the VMM prints, [`PROCESS_LOG_BYTES_MAX`](vc_types::limits::PROCESS_LOG_BYTES_MAX)
    /// of it; open for reading and writing.
    pub vmm_log: File,
    /// The template that its guest goes on from, instead of booting.
    pub template: Option<SavedVm>,
}

/// A guest that was saved, for one VM that goes on from there.
#[derive(Debug)]
pub struct SavedVm {
    /// The guest's memory: this VM's own copy, which it changes.
    pub memory: OwnedFd,
    /// Says when that copy is complete, or why it is not: [`io::ErrorKind::InvalidData`] where what is copied cannot be
    /// read. The VMM may start before.
    pub filled: oneshot::Receiver<io::Result<()>>,
    /// What [`Hypervisor::make_template`](crate::Hypervisor::make_template) gave.
    pub notes: String,
    /// The state of the machine's devices, at its beginning; open for reading.
    pub state: OwnedFd,
}

/// What takes a template.
#[derive(Debug)]
pub struct TemplateFiles {
    /// Takes the guest's memory: as large as that, empty, and open for the VMM's user to write.
    pub memory: OwnedFd,
    /// Takes the state of the machine's devices.
    pub state: OwnedFd,
    /// The image of the scratch disk, with a file system in it; open for reading and writing. Where the
    /// VMs have one from the template.
    pub scratch: Option<OwnedFd>,
}

/// A file system of the host that a device process serves.
#[derive(Debug)]
pub struct Share {
    /// By which the guest mounts it.
    pub tag: String,
    /// A connection to the device process, which speaks vhost-user.
    pub socket: OwnedFd,
}

/// How a guest learns the type of a device that a process serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServedTypes {
    /// By the device's own number, as any guest does.
    #[default]
    ByNumber,
    /// By its class, where the guest's kernel knows that. Such devices can be in a template, so a VM that
    /// goes on from one has them at once and its guest has found them. The processes tell the VMM the
    /// devices' configuration, the tag of a share included. There are at most seven shares, with tags of at
    /// most 33 bytes.
    ByClass,
}

/// The guest's vsock device.
#[derive(Debug)]
pub enum Vsock {
    /// A device process serves it.
    VhostUser {
        /// A connection to the device process, which speaks vhost-user.
        socket: OwnedFd,
        /// The Unix socket at which the device process takes `CONNECT <port>`.
        host_socket: PathBuf,
    },
    /// The VMM itself serves it.
    Own {
        /// The Unix socket at which the VMM is to take `CONNECT <port>`.
        host_socket: PathBuf,
    },
    /// The host's kernel serves it.
    Vhost {
        /// `/dev/vhost-vsock`, opened.
        device: OwnedFd,
        /// The guest's context id, which no other VM of the host has.
        cid: u32,
    },
}

impl Vsock {
    /// Where the guest's agent is reached through this device.
    pub fn agent_address(&self) -> AgentAddress {
        match self {
            Self::VhostUser { host_socket, .. } | Self::Own { host_socket } => {
                AgentAddress::HybridVsock {
                    socket: host_socket.clone(),
                }
            }
            Self::Vhost { cid, .. } => AgentAddress::Vsock { cid: *cid },
        }
    }
}

/// A block device.
#[derive(Debug)]
pub struct Disk {
    /// The image, raw.
    pub image: OwnedFd,
    /// By which the guest finds it.
    pub serial: String,
    /// The guest may not write; `image` is open for reading only then, else for both.
    pub read_only: bool,
    /// Its content is worth nothing once the VM is gone, so the guest's flushes are not passed on.
    pub scratch: bool,
}

impl VmSpec {
    /// What it begins with.
    pub fn size(&self) -> VmSize {
        VmSize {
            vcpus: self.vcpus,
            memory: self.memory,
        }
    }

    /// Whether the devices that processes serve can be in a template.
    pub(crate) fn serves_by_class(&self) -> bool {
        let by_process = matches!(self.vsock, Vsock::VhostUser { .. });
        by_process && self.served_types == ServedTypes::ByClass
    }

    /// The scratch disk that a template has too, with its place among the disks.
    pub(crate) fn disk_of_template(&self) -> Option<(usize, &Disk)> {
        let mut disks = self.disks.iter().enumerate();
        disks.find(|(_, disk)| self.scratch_of_template && disk.scratch)
    }

    /// Between which sizes it can be.
    pub fn growth(&self) -> Growth {
        Growth {
            first: self.size(),
            largest: self.largest.unwrap_or_else(|| self.size()),
        }
    }

    /// Compares this with what a driver can do.
    ///
    /// # Errors
    ///
    /// [`Error::Spec`] with the first thing that cannot be.
    pub fn check(&self, capabilities: &Capabilities) -> Result<()> {
        let cannot = |what: &'static str, reason: String| Err(Error::Spec { what, reason });
        let at_most = |what, count: usize, max: usize| match count <= max {
            true => Ok(()),
            false => cannot(what, format!("there are {count}, and {max} are possible")),
        };
        if self.vcpus == 0 {
            return cannot("vcpus", "at least one is needed".into());
        }
        at_most(
            "vcpus",
            self.vcpus as usize,
            capabilities.vcpus_max as usize,
        )?;
        let (shares_max, tag_bytes_max) = match self.serves_by_class() {
            true => (SHARES_BY_CLASS_MAX, TAG_BYTES_BY_CLASS_MAX),
            false => (usize::MAX, TAG_BYTES_MAX),
        };
        let shares_max = shares_max.min(capabilities.shares_max);
        at_most("shares", self.shares.len(), shares_max)?;
        at_most("disks", self.disks.len(), capabilities.disks_max)?;
        at_most("nics", self.nics.len(), capabilities.nics_max)?;
        at_most(
            "root ports",
            self.root_ports.into(),
            capabilities.root_ports_max.into(),
        )?;
        if self.memory.mib() < capabilities.memory_mib_min.into() {
            let (memory, min) = (self.memory, capabilities.memory_mib_min);
            return cannot("memory", format!("{memory} is less than {min} MiB"));
        }
        if let Some(largest) = self.largest {
            let size = self.size();
            if largest != largest.max(size) {
                return cannot("largest size", format!("{largest} is less than {size}"));
            }
            at_most(
                "largest vcpus",
                largest.vcpus as usize,
                capabilities.vcpus_max as usize,
            )?;
            if largest != size && !capabilities.resizes {
                return cannot("largest size", "the VMM does not resize VMs".into());
            }
        }
        if !self.memory.bytes().is_multiple_of(1 << 20) {
            return cannot("memory", format!("{} is not a whole MiB", self.memory));
        }
        if matches!(self.vsock, Vsock::Own { .. }) && !capabilities.own_vsock {
            return cannot("vsock", "the VMM does not serve it itself".into());
        }
        names(
            "share tags",
            self.shares.iter().map(|share| share.tag.as_str()),
            tag_bytes_max,
        )?;
        names(
            "disk serials",
            self.disks.iter().map(|disk| disk.serial.as_str()),
            SERIAL_BYTES_MAX,
        )?;
        let ids = self.nics.iter().map(|nic| nic.id.as_str());
        names("nic ids", ids, nic::ID_BYTES_MAX)?;
        nic::check(&self.nics, capabilities)?;
        if let Some(param) = self.kernel_params.iter().find(|param| {
            param.is_empty()
                || !param
                    .bytes()
                    .all(|byte| byte == b' ' || byte.is_ascii_graphic())
        }) {
            return cannot("kernel parameters", format!("{param:?} is not one"));
        }
        let (bytes, max) = (
            self.kernel_params
                .iter()
                .map(|param| param.len() + 1)
                .sum::<usize>(),
            capabilities.kernel_params_bytes_max,
        );
        if bytes > max {
            return cannot(
                "kernel parameters",
                format!("they have {bytes} bytes of at most {max}"),
            );
        }
        Ok(())
    }
}

/// Names that reach the guest and the VMM's command line: plain, short, each once.
pub(crate) fn names<'a>(
    what: &'static str,
    names: impl Iterator<Item = &'a str>,
    bytes_max: usize,
) -> Result<()> {
    let mut seen = Vec::new();
    for name in names {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let reason = if name.is_empty() || !name.chars().all(plain) {
            format!("{name:?} must be letters, digits, '-', '_' and '.'")
        } else if name.len() > bytes_max {
            format!("{name:?} is longer than {bytes_max} bytes")
        } else if seen.contains(&name) {
            format!("{name:?} is there twice")
        } else {
            seen.push(name);
            continue;
        };
        return Err(Error::Spec { what, reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock;

    fn refused(change: impl FnOnce(&mut VmSpec)) -> String {
        let mut spec = mock::spec("web1").unwrap();
        change(&mut spec);
        spec.check(&mock::CAPABILITIES).unwrap_err().to_string()
    }

    fn disk(serial: &str) -> Disk {
        Disk {
            image: mock::null().unwrap(),
            serial: serial.into(),
            read_only: false,
            scratch: true,
        }
    }

    #[test]
    fn what_a_driver_cannot_do_is_refused_by_name() {
        assert!(
            mock::spec("web1")
                .unwrap()
                .check(&mock::CAPABILITIES)
                .is_ok()
        );
        assert!(refused(|spec| spec.vcpus = 0).contains("vcpus"));
        assert!(refused(|spec| spec.vcpus = 100_000).contains("vcpus"));
        assert!(refused(|spec| spec.memory = ByteSize::from_mib(1)).contains("memory"));
        let smaller = |spec: &mut VmSpec| {
            spec.largest = Some(VmSize {
                vcpus: 8,
                memory: ByteSize::from_mib(256),
            });
        };
        assert!(refused(smaller).contains("8 processors, 256 MiB is less"));
        let mut spec = mock::spec("web1").unwrap();
        spec.vsock = Vsock::Own {
            host_socket: "/nonexistent/vsock.sock".into(),
        };
        let error = spec.check(&crate::qemu::CAPABILITIES).unwrap_err();
        assert!(error.to_string().contains("vsock"), "{error}");
        assert!(spec.check(&mock::CAPABILITIES).is_ok());
        assert!(
            refused(|spec| spec.memory = ByteSize::from_bytes((512 << 20) + 1)).contains("MiB")
        );
        assert!(refused(|spec| spec.root_ports = 255).contains("root ports"));
        let by_class = |tags: Vec<String>| {
            refused(|spec| {
                spec.vsock = Vsock::VhostUser {
                    socket: mock::null().unwrap(),
                    host_socket: "/nonexistent/vsock.sock".into(),
                };
                spec.served_types = ServedTypes::ByClass;
                let share = |tag| Share {
                    tag,
                    socket: mock::null().unwrap(),
                };
                spec.shares = tags.into_iter().map(share).collect();
            })
        };
        assert!(by_class((0..8).map(|n| n.to_string()).collect()).contains("7 are possible"));
        assert!(by_class(vec!["x".repeat(34)]).contains("33 bytes"));
        assert!(refused(|spec| spec.disks = vec![disk("a"), disk("a")]).contains("twice"));
        assert!(refused(|spec| spec.disks = vec![disk("a,b")]).contains("a,b"));
        assert!(refused(|spec| spec.disks = vec![disk(&"x".repeat(21))]).contains("20 bytes"));
        for params in [
            vec!["a\nb".into()],
            vec![String::new()],
            vec!["x=1".into(); 1_000],
        ] {
            assert!(refused(|spec| spec.kernel_params = params).contains("kernel parameters"));
        }
    }
}
