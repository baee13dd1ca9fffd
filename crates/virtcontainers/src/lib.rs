//! Secure containers: each sandbox is a lightweight virtual machine of its own.
//!
//! A [`Runtime`] (a state root and a configuration) makes a [`Sandbox`] of a [`SandboxConfig`]:
//! it starts the VMM and its device processes, waits for the agent in the guest, shares what was
//! asked for, and makes the containers. The caller is the sandbox's *keeper*: what it started
//! ends with it.
//!
//! Whatever fails, is dropped or is killed in the middle leaves nothing: what this process holds
//! are guards, what it started dies with it, and the state on disk says what there was.
//!
//! ```no_run
//! use virtcontainers::{Runtime, RuntimeOptions, SandboxConfig};
//!
//! # async fn example(config: SandboxConfig) -> Result<(), virtcontainers::Error> {
//! let container = config.containers[0].id.clone();
//! let runtime = Runtime::open(RuntimeOptions::default())?;
//! let mut sandbox = runtime.create_sandbox(config).await?;
//! sandbox.start_container(&container).await?;
//! let exit = sandbox.wait_process(&container).await?;
//! println!("it ended with {}", exit.status.shell_code());
//! sandbox.stop().await?;
//! sandbox.delete().await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod factory;
pub mod fault;
pub mod keeper;
#[cfg(feature = "mock")]
pub mod mock;
pub mod stream;

mod check;
mod container;
mod driver;
mod error;
mod hook;
mod runtime;
mod sandbox;
mod stats;

pub use check::{CheckItem, CheckStatus, Versions};
pub use container::{
    Access, Bundle, ContainerConfig, ContainerStatus, GeneratedFile, HostNamespaces, Neighbours,
    PodRole, Propagation, Root, RootDisk, RootSource, Volume, demand_of_pod,
};
pub use default_spec::{ProcessConfig, default_spec};
pub use driver::Driver;
pub use error::{Error, FailureReport, Result, Stage};
pub use hook::{ContainerHooks, HookFailure, HookKind, run_hooks};
pub use runtime::{Runtime, RuntimeOptions, accelerator_choice};
pub use sandbox::vsock::{DIRECTORY_FD, HOST_FD, VHOST_FD};
pub use sandbox::{
    Address, CONSOLE_LOG, CopyOptions, Device, DeviceConfig, EndpointConfig, GcReport,
    GuestProcess, HostCgroup, Interface, Lease, NetworkConfig, PROCESS_LOGS, Process, ProcessExit,
    Removed, Route, Sandbox, SandboxConfig, SandboxHandle, Scratch, Started, VMM_LOG,
    VhostUserConfig, VmConfig, WaitingConfig, WaitingReport, hold,
};
pub use stats::{
    BlkioEntry, BlkioStats, ContainerStats, CpuStats, HugetlbStats, MemoryStats, MemoryUsage,
    NetworkStats, PidsStats, ThrottlingStats,
};
pub use vc_agent_client::network::IpVersion;
pub use vc_hypervisor::PlugPhase;
/// Whom a guest with [`NetworkConfig::User`] asks for names: it asks the host's resolver.
pub const USER_RESOLVER: std::net::Ipv4Addr = sandbox::RESOLVER;
pub use vc_network::{
    BitRate, HostNetwork, InterworkingModel, Protocol, PublishedPort, RateLimits,
};
/// The directories of the host that a root made of the host's own system shows.
pub use vc_storage::host_system::DIRECTORIES as HOST_SYSTEM;
pub use vc_store::{Activity, Listed, UnixMillis, Verb, View};
