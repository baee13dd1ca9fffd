//! The ground floor: what every crate of virtcontainers may speak of.
//!
//! Values here are checked when they are made, so that no later code checks them again: a
//! [`SandboxId`] cannot hold a path, an [`ExitStatus`] cannot be a success that was guessed.
//! Nothing in this crate waits, and nothing but [`ProcessIdentity`] and [`SocketPath`] asks the system.

#![forbid(unsafe_code)]

pub mod guest;
pub mod limits;

mod address;
mod error;
mod exit;
mod id;
mod observer;
mod pci;
mod process;
mod signal;
mod size;
mod socket;
mod state;
mod text;
mod timeline;
mod users;
mod vm_size;

pub use address::AgentAddress;
pub use error::{Error, Hint, Result};
pub use exit::{EndReason, ExitStatus};
pub use id::{ContainerId, ExecId, SandboxId};
pub use observer::Observer;
pub use pci::PciAddress;
pub use process::{BootId, Liveness, ProcessIdentity};
pub use signal::Signal;
pub use size::ByteSize;
pub use socket::SocketPath;
pub use state::{ContainerState, SandboxState};
pub use text::one_line;
pub use timeline::{ClockPoint, Timeline};
pub use users::SandboxUsers;
pub use vm_size::VmSize;
