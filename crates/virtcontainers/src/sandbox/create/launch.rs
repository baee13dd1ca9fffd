use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use vc_agent_client::ReadyListener;
use vc_agent_client::network::GuestNetwork;
use vc_hypervisor::{Disk, VmSpec};
use vc_storage::ScratchDisk;
use vc_types::{AgentAddress, ClockPoint, ContainerId, Timeline, guest};

use super::super::config::SandboxConfig;
use super::super::machine::Machine;
use super::super::network::AttachedNetwork;
use super::super::place::Place;
use super::super::{CONSOLE_LOG, VMM_LOG};
use super::Beginning;
use super::prepare::Prepared;
use crate::container::placement::Placement;
use crate::error::{Error, Result};
use crate::factory::{Origin, VmRequest};
use crate::fault;
use crate::runtime::Shared;

/// A machine whose processes all run.
pub(super) struct Launched {
    pub(super) config: SandboxConfig,
    pub(super) containers: Vec<(ContainerId, Placement)>,
    pub(super) machine: Machine,
    /// Goes after the machine, which has its taps.
    pub(super) network: Option<AttachedNetwork>,
    /// What the guest has where that does not say it.
    pub(super) guest_network: Option<GuestNetwork>,
    pub(super) ready: ReadyListener,
    pub(super) address: AgentAddress,
    pub(super) scratch: Option<Arc<ScratchDisk>>,
    pub(super) shares: Vec<&'static str>,
    pub(super) writable: bool,
    pub(super) origin: Origin,
}

/// Starts what stands around the VM, and obtains it from the factory.
pub(super) async fn launch(
    runtime: &Arc<Shared>,
    prepared: Prepared,
    place: &Place,
    timeline: &mut Timeline,
    beginning: Beginning,
) -> Result<Launched> {
    let directory = place.path();
    let Prepared {
        config,
        containers,
        disks,
        surroundings,
        ..
    } = prepared;
    let around = surroundings.start(runtime, place, &config, timeline);
    let around = around.await?;
    let mut kernel_params = vec![format!("virtc.ready_port={}", guest::READY_PORT)];
    kernel_params.extend(config.vm.kernel_params.iter().cloned());
    let address = around.vsock.agent_address();
    let scratch = around.scratch.as_deref();
    // One that had to be smaller is like no other one.
    let scratch_of_template = scratch.is_some_and(ScratchDisk::is_whole);
    let scratch = scratch.map(scratch_disk).transpose()?;
    let writable = around.writable || disks.iter().any(|disk| !disk.read_only);
    let spec = VmSpec {
        sandbox: config.id.clone(),
        directory: directory.to_owned(),
        vcpus: config.vm.vcpus,
        memory: config.vm.memory,
        largest: config.vm.largest,
        accelerator: around.boot.accelerator,
        kernel: around.boot.kernel.into(),
        initrd: around.boot.initrd.into(),
        kernel_params,
        shares: around.shares,
        vsock: around.vsock,
        served_types: around.boot.served_types,
        disks: scratch.into_iter().chain(disks).collect(),
        scratch_of_template,
        nics: around.nics,
        root_ports: config.vm.root_ports,
        console_log: log_file(directory, CONSOLE_LOG)?,
        vmm_log: log_file(directory, VMM_LOG)?,
        template: None,
    };
    let mut request = VmRequest::new(spec);
    request.scratch.clone_from(&around.scratch);
    request.boots = beginning == Beginning::Boot;
    request.size_of_boot = config.vm.wanted();
    let obtained = runtime.factory.obtain(&*around.hypervisor, request).await?;
    timeline.mark(ClockPoint::Spawned);
    fault::point("create.vmm-launched")?;
    Ok(Launched {
        config,
        containers,
        machine: Machine::watch(around.launcher, obtained.vm, around.devices)?,
        network: around.network,
        guest_network: around.guest_network,
        ready: around.ready,
        address,
        scratch: around.scratch,
        shares: around.tags,
        writable,
        origin: obtained.origin,
    })
}

fn scratch_disk(disk: &ScratchDisk) -> Result<Disk> {
    Ok(Disk {
        image: disk.descriptor()?,
        serial: guest::SCRATCH_SERIAL.into(),
        read_only: false,
        scratch: true,
    })
}

fn log_file(directory: &Path, name: &str) -> Result<File> {
    let path = directory.join(name);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    opened.map_err(|source| Error::System {
        attempt: format!("make {}", path.display()),
        source,
    })
}
