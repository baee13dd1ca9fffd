//! Launches virtual machines and holds the running ones.
//!
//! A [`Hypervisor`] is a driver: it says what it can do ([`Capabilities`], before any VM exists)
//! and makes a [`Vm`] of a [`VmSpec`]. A [`Vm`] is a running machine: its processes, where its
//! agent answers, pause and resume, devices that come and go, its end, and what is stored of it ([`DriverState`]) so that
//! another process can take hold of it again.
//!
//! Everything that a VMM opens is handed to it as an open descriptor: the kernel, the disks, the
//! sockets of its device processes. A VMM is a process of an own user without capabilities,
//! started by the launcher of `vc-launch`.
//!
//! What a VMM says is not believed: its messages have a largest size, every command a time limit,
//! and a VM that ends is a [`VmEnd`] that says why, never a guess.
//!
//! | module | what it holds |
//! |---|---|
//! | [`qemu`] | the driver for QEMU: arguments, QMP, watching over the process |
//! | [`mock`] | a driver without a machine, with scripted failures, for tests |
//! | [`accelerator`] | whether KVM can be used here, and why not |
//! | [`watched_fd`] | waiting for the end of a process without a thread, and for sockets of other kinds |
//! | [`log`] | the bounded file that a console or a VMM's messages go to |

#![deny(unsafe_code)]

pub mod accelerator;
pub mod log;
pub mod mock;
pub mod qemu;
pub mod watched_fd;

mod capabilities;
mod end;
mod error;
mod growth;
mod hotplug;
mod hypervisor;
mod nic;
mod spec;
mod state;
mod tick_rate;

pub use accelerator::{Accelerator, AcceleratorChoice, HostDevices};
pub use capabilities::{Capabilities, Transport};
pub use end::VmEnd;
pub use error::{Error, Result};
pub use growth::Growth;
pub use hotplug::{HotDevice, HotDeviceKind, HotPlugRecord, PlugPhase, Plugged};
pub use hypervisor::{CurrentSize, Hypervisor, StopLimits, Vm};
pub use nic::{Detour, ForwardProtocol, Nic, NicBackend, NicFilter, PortForward};
pub use spec::{Disk, SavedVm, ServedTypes, Share, TemplateFiles, VmSpec, Vsock};
pub use state::DriverState;
pub use vc_types::AgentAddress;
