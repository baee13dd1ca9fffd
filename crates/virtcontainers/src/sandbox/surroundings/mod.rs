//! What stands around a VM: the driver that makes it, and what of the host serves it.
//!
//! ```text
//! Surroundings ──▶ Planned ──▶ Standing
//! of a runtime     all that     device processes run,
//!                  one sandbox  the driver can launch
//!                  needs is
//!                  possible
//! ```
//!
//! The [`Host`] surrounds a VM with processes for its vsock and its shares, a scratch disk and a
//! guest to boot. A driver without a machine needs none of that.

mod host;

use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use vc_agent_client::ReadyListener;
use vc_agent_client::network::GuestNetwork;
use vc_hypervisor::{
    Accelerator, Capabilities, DriverState, Hypervisor, Nic, ServedTypes, Share, Vm, Vsock,
};
use vc_launch::Launcher;
use vc_storage::ScratchDisk;
use vc_store::SandboxRecord;
use vc_types::{ContainerId, SandboxId, Timeline};

pub(crate) use host::{Host, MKFS, SYSTEM_SHARE, USER_SHARE, VSOCK_DEVICE};

use super::config::SandboxConfig;
use super::machine::Device;
use super::network::{AttachedNetwork, IntendedNetwork};
use super::place::Place;
use crate::container::placement::Placement;
use crate::error::Result;
use crate::runtime::Shared;

/// What stands around each VM of a runtime.
#[async_trait]
pub(crate) trait Surroundings: Send + Sync {
    /// The driver's name, as configurations have it.
    fn name(&self) -> &'static str;

    /// What a VM of the driver can have.
    fn capabilities(&self) -> Capabilities;

    /// Whether a guest gets at files of the host. Where it does not, those of its containers are
    /// passed over.
    fn serve_files(&self) -> bool;

    /// Refuses what cannot be here, before anything of it is looked at.
    fn check(&self, config: &SandboxConfig) -> Result<()>;

    /// Looks at everything that the sandbox needs, and opens it. Nothing is changed.
    fn plan(
        &self,
        runtime: &Shared,
        config: &SandboxConfig,
        containers: &[(ContainerId, Placement)],
    ) -> Result<Box<dyn Planned>>;

    /// Takes hold of a VM that somebody keeps.
    async fn attach(
        &self,
        config: &vc_config::Config,
        sandbox: &SandboxId,
        state: &DriverState,
    ) -> Result<Box<dyn Vm>>;

    /// Ends what of a sandbox's machine is no process of the host, whoever keeps it.
    fn end(&self, sandbox: &SandboxId);
}

/// What a sandbox needs around its VM, all of it open and nothing started.
#[async_trait]
pub(crate) trait Planned: Send + Sync {
    /// Notes in the state what the VM is made of.
    fn describe(&self, record: &mut SandboxRecord);

    /// What a machine is made of that could wait before anybody asks for this sandbox: two with the
    /// same text can have the same one. Nothing where none can wait for it.
    fn waiting_key(&self, _runtime: &Shared, _config: &SandboxConfig) -> Result<Option<String>> {
        Ok(None)
    }

    /// The network, for a machine that is there already; once.
    fn take_network(&mut self) -> Option<IntendedNetwork> {
        None
    }

    /// Whether changes may reach the host.
    fn is_writable(&self) -> bool {
        false
    }

    /// Makes and starts what the VM needs, all at once: the VMM waits for its devices by itself.
    async fn start(
        self: Box<Self>,
        runtime: &Shared,
        place: &Place,
        config: &SandboxConfig,
        timeline: &mut Timeline,
    ) -> Result<Standing>;
}

/// What stands around a VM that can be launched now. Dropping it ends what runs.
pub(crate) struct Standing {
    /// Makes the VM.
    pub(crate) hypervisor: Box<dyn Hypervisor>,
    /// Holds the processes.
    pub(crate) launcher: Option<Arc<Launcher>>,
    /// The processes that serve the VM.
    pub(crate) devices: Vec<Device>,
    /// What the guest boots.
    pub(crate) boot: Boot,
    /// The way to the agent.
    pub(crate) vsock: Vsock,
    /// Where the agent will say that it is ready.
    pub(crate) ready: ReadyListener,
    /// What the guest has of the host's network, and what takes it away again. It goes after the
    /// machine.
    pub(crate) network: Option<AttachedNetwork>,
    /// What it has where no network of the host says it.
    pub(crate) guest_network: Option<GuestNetwork>,
    /// The devices of that.
    pub(crate) nics: Vec<Nic>,
    /// File systems of the host.
    pub(crate) shares: Vec<Share>,
    /// The tags of them.
    pub(crate) tags: Vec<&'static str>,
    /// Where changes go that vanish, unless they go to the guest's memory.
    pub(crate) scratch: Option<Arc<ScratchDisk>>,
    /// Whether changes may reach the host.
    pub(crate) writable: bool,
}

/// What a guest boots, and what executes it.
pub(crate) struct Boot {
    pub(crate) accelerator: Accelerator,
    pub(crate) kernel: File,
    pub(crate) initrd: File,
    /// How the guest learns what its vsock and its shares are.
    pub(crate) served_types: ServedTypes,
}
