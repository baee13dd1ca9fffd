//! The driver for QEMU.
//!
//! ```text
//! VmSpec ─▶ args (pure) ─▶ launcher ─▶ QEMU ◀── events socket ── keeper (this process)
//!                                        ▲ ▲─── pipes: console, messages ──┘
//!                                        └───── command socket ◀── whoever operates on the VM
//! ```
//!
//! The keeper holds the event connection, both pipes and the process for the VM's whole life, and
//! turns what they say into one [`VmEnd`](crate::VmEnd). Commands go over a second socket, which
//! serves one client at a time and is connected only while a command runs, so that any process
//! can operate on the VM.
//!
//! Devices come and go behind root ports (ACPI's hot-plug). The account of the ports is the host's, in
//! [`QemuState`]; what a guest does changes nothing of it. A guest can keep a device that it was asked
//! to let go of, and with it QEMU's part of it: the device is known as leaving then. Such a guest can
//! still be stopped.
//!
//! A VM grows by processors that are plugged in and stay, and by memory behind one device
//! (virtio-mem), which the guest takes and gives back. What it can grow to is fixed at its start.
//!
//! QEMU runs as an own user without capabilities, in its own network, IPC and UTS namespaces,
//! with its seccomp filter on. Only for a network device of [`NicBackend::User`](crate::NicBackend)
//! it stays in the caller's network namespace. It opens nothing but its firmware and, by
//! `/proc/self/fd`, the kernel and initrd that were passed to it.

mod accel;
mod args;
mod config;
mod device;
mod hotplug;
mod keeper;
mod late;
mod launch;
mod nic;
mod qmp;
mod resize;
mod socket;
mod stand_in;
mod state;
mod template;
mod version;
mod vm;

pub use accel::kernel_params;
pub use args::port_pci_path;
pub use config::{QemuConfig, QemuLimits, TcgThreads, VmmUser};
pub use nic::{NicPlace, nic_places};
pub use socket::COMMANDS_SOCKET;
pub use state::QemuState;
pub use version::QemuVersion;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use vc_launch::Launcher;

use crate::{
    Capabilities, DriverState, Error, HostDevices, HotDeviceKind, Hypervisor, Result,
    TemplateFiles, Transport, Vm, VmSpec,
};

/// What the driver can do with the oldest QEMU that it is made for.
pub const CAPABILITIES: Capabilities = Capabilities {
    vcpus_max: 240,
    memory_mib_min: 128,
    shares_max: 8,
    disks_max: 8,
    nics_max: 64,
    nic_queues_max: 16,
    // Of the 200 that the launcher passes to one process.
    nic_descriptors_max: 128,
    user_network: true,
    passed_nics: true,
    hot_plug: &[
        HotDeviceKind::Nic,
        HotDeviceKind::Disk,
        HotDeviceKind::Memory,
    ],
    resizes: true,
    root_ports_max: 32,
    own_vsock: false,
    transports: &[Transport::VhostVsock, Transport::HybridVsock],
    kernel_params_bytes_max: 1_330,
};

/// The QEMU driver.
///
/// ```no_run
/// use std::sync::Arc;
/// use vc_hypervisor::qemu::{QemuConfig, QemuHypervisor};
/// use vc_hypervisor::{Hypervisor, StopLimits, Vm, VmSpec};
/// use vc_launch::Launcher;
///
/// # async fn example(spec: VmSpec) -> Result<(), Box<dyn std::error::Error>> {
/// let launcher = Arc::new(Launcher::start(Launcher::OWN_PROGRAM)?);
/// let qemu = QemuHypervisor::new(QemuConfig::default(), launcher);
/// let vm = qemu.launch(spec).await?;
/// println!("the agent is at {}", vm.agent_address());
/// vm.stop(StopLimits::default()).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct QemuHypervisor {
    config: QemuConfig,
    devices: HostDevices,
    launcher: Arc<Launcher>,
}

impl QemuHypervisor {
    /// A driver whose VMs are started, and held, by `launcher`.
    pub fn new(config: QemuConfig, launcher: Arc<Launcher>) -> Self {
        Self {
            config,
            devices: HostDevices::default(),
            launcher,
        }
    }
}

#[async_trait]
impl Hypervisor for QemuHypervisor {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn launch(&self, spec: VmSpec) -> Result<Box<dyn Vm>> {
        let vm = launch::launch(&self.config, &self.devices, &self.launcher, spec).await?;
        Ok(Box::new(vm))
    }

    fn template_key(&self, spec: &VmSpec) -> Result<Option<String>> {
        template::key(&self.config, &self.devices, spec)
    }

    async fn make_template(
        &self,
        like: &VmSpec,
        files: TemplateFiles,
        boot_limit: Duration,
    ) -> Result<String> {
        let (config, devices, launcher) = (&self.config, &self.devices, &self.launcher);
        template::make(config, devices, launcher, like, files, boot_limit).await
    }

    async fn attach(&self, state: &DriverState) -> Result<Box<dyn Vm>> {
        attach(state, self.config.limits)
    }
}

/// Takes hold of a VM that another process keeps, as [`Hypervisor::attach`] does, for those who
/// launch none. Nothing is asked of QEMU yet.
///
/// # Errors
///
/// [`Error::OtherDriver`] when `state` is of another driver.
pub fn attach(state: &DriverState, limits: QemuLimits) -> Result<Box<dyn Vm>> {
    match state {
        DriverState::Qemu(state) => Ok(Box::new(vm::AttachedVm::new(state.clone(), limits))),
        other => Err(Error::OtherDriver {
            wanted: "qemu",
            found: other.driver(),
        }),
    }
}
