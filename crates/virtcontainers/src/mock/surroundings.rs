//! The mock driver, and the nothing that stands around its machines.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use vc_agent_client::ReadyListener;
use vc_hypervisor::mock::CAPABILITIES;
use vc_hypervisor::{
    Accelerator, AgentAddress, Capabilities, DriverState, Hypervisor, ServedTypes, Vm, VmEnd,
    VmSpec, Vsock,
};
use vc_store::SandboxRecord;
use vc_types::{ContainerId, SandboxId, Timeline};

use super::agent;
use super::script::{GuestScript, Script};
use crate::container::placement::Placement;
use crate::error::{Error, Result};
use crate::fault;
use crate::runtime::Shared;
use crate::sandbox::config::SandboxConfig;
use crate::sandbox::place::Place;
use crate::sandbox::surroundings::{Boot, Planned, Standing, Surroundings};
use crate::sandbox::vsock;

/// The surroundings of a played guest.
pub(super) struct Played(pub(super) Script);

#[async_trait]
impl Surroundings for Played {
    fn name(&self) -> &'static str {
        "mock"
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn serve_files(&self) -> bool {
        false
    }

    fn check(&self, _config: &SandboxConfig) -> Result<()> {
        Ok(())
    }

    fn plan(
        &self,
        _runtime: &Shared,
        config: &SandboxConfig,
        _containers: &[(ContainerId, Placement)],
    ) -> Result<Box<dyn Planned>> {
        Ok(Box::new(Plan(self.0.guest(&config.id))))
    }

    async fn attach(
        &self,
        _config: &vc_config::Config,
        sandbox: &SandboxId,
        state: &DriverState,
    ) -> Result<Box<dyn Vm>> {
        Ok(self.0.guest(sandbox).hypervisor().attach(state).await?)
    }

    fn end(&self, sandbox: &SandboxId) {
        let guest = self.0.guest(sandbox);
        guest.machine().end(VmEnd::Stopped { killed: true });
    }
}

struct Plan(GuestScript);

#[async_trait]
impl Planned for Plan {
    fn describe(&self, _record: &mut SandboxRecord) {}

    async fn start(
        self: Box<Self>,
        _runtime: &Shared,
        place: &Place,
        _config: &SandboxConfig,
        _timeline: &mut Timeline,
    ) -> Result<Standing> {
        let host_socket = vsock::make_directory(place.path())?;
        let vsock = Vsock::Own { host_socket };
        let ready = ReadyListener::bind(&vsock.agent_address())?;
        fault::point("create.sockets")?;
        Ok(Standing {
            hypervisor: Box::new(PlayedHypervisor(self.0)),
            launcher: None,
            devices: Vec::new(),
            boot: Boot {
                accelerator: Accelerator::Tcg,
                kernel: nothing()?,
                initrd: nothing()?,
                served_types: ServedTypes::ByNumber,
            },
            vsock,
            ready,
            network: None,
            guest_network: None,
            nics: Vec::new(),
            shares: Vec::new(),
            tags: Vec::new(),
            scratch: None,
            writable: false,
        })
    }
}

/// What a guest boots that is none.
fn nothing() -> Result<File> {
    let path = Path::new("/dev/null");
    File::open(path).map_err(|source| Error::System {
        attempt: format!("open {}", path.display()),
        source,
    })
}

/// The mock driver, whose VMs have an agent.
struct PlayedHypervisor(GuestScript);

#[async_trait]
impl Hypervisor for PlayedHypervisor {
    fn capabilities(&self) -> Capabilities {
        self.0.hypervisor().capabilities()
    }

    async fn launch(&self, spec: VmSpec) -> vc_hypervisor::Result<Box<dyn Vm>> {
        let sandbox = spec.sandbox.clone();
        let socket = socket_of(&spec.vsock.agent_address());
        let vm = self.0.hypervisor().launch(spec).await?;
        // Its agent sees its end, and does not keep it.
        let seen = self.attach(&vm.state()).await?;
        let played = socket.and_then(|socket| agent::play(&socket, self.0.clone(), seen));
        played.map_err(|source| vc_hypervisor::Error::Host {
            attempt: "play the agent",
            sandbox,
            source,
        })?;
        Ok(vm)
    }

    async fn attach(&self, state: &DriverState) -> vc_hypervisor::Result<Box<dyn Vm>> {
        self.0.hypervisor().attach(state).await
    }
}

fn socket_of(address: &AgentAddress) -> io::Result<PathBuf> {
    match address {
        AgentAddress::HybridVsock { socket } => Ok(socket.clone()),
        other => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("no agent can be played at {other:?}"),
        )),
    }
}
