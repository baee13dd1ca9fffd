use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use vc_agent_client::ReadyListener;
use vc_hypervisor::qemu::QemuHypervisor;
use vc_hypervisor::{Disk, Hypervisor, VmSpec, Vsock};
use vc_launch::Launcher;
use vc_storage::{ScratchDisk, Share, SharePlan};
use vc_types::{AgentAddress, ClockPoint, ContainerId, SandboxId, SandboxUsers, Timeline, guest};

use super::super::cgroups;
use super::super::config::{SandboxConfig, Scratch};
use super::super::machine::{Device, Machine};
use super::super::place::Place;
use super::super::process_log;
use super::super::vsock::VsockSockets;
use super::super::{CONSOLE_LOG, VMM_LOG};
use super::prepare::Prepared;
use crate::container::placement::Placement;
use crate::error::{Error, Result};
use crate::fault;
use crate::runtime::Shared;

/// A machine whose processes all run.
pub(super) struct Launched {
    pub(super) config: SandboxConfig,
    pub(super) containers: Vec<(ContainerId, Placement)>,
    pub(super) machine: Machine,
    pub(super) ready: ReadyListener,
    pub(super) address: AgentAddress,
    pub(super) scratch: Option<ScratchDisk>,
    pub(super) shares: Vec<&'static str>,
    pub(super) writable: bool,
}

/// Starts everything at once: the VMM waits for its devices by itself.
pub(super) async fn launch(
    runtime: &Arc<Shared>,
    prepared: Prepared,
    place: &Place,
    timeline: &mut Timeline,
) -> Result<Launched> {
    let directory = place.path();
    let users = SandboxUsers::of(place.id());
    let launcher = Arc::new(launcher(runtime, place)?);
    let sockets = VsockSockets::create(directory, users.vsock())?;
    fault::point("create.sockets")?;
    let address = sockets.address.clone();

    let mut scratch = match (&prepared.config.scratch, &prepared.mkfs) {
        (Scratch::Disk { size }, Some(mkfs)) => Some(ScratchDisk::create(
            &launcher,
            mkfs,
            &runtime.config.scratch.dir,
            *size,
        )?),
        _ => None,
    };
    fault::point("create.scratch-made")?;
    let vsock = async {
        let log = process_log::start(directory, place.id(), "vsock-device")?;
        let started = sockets.launch(&launcher, &runtime.program, log).await;
        fault::point("create.vsock-launched")?;
        started
    };
    let writable = prepared.user.as_ref().is_some_and(SharePlan::is_writable);
    let share = |plan: Option<SharePlan>, name: &'static str| {
        start_share(
            &launcher,
            prepared.virtiofsd.as_ref(),
            plan,
            directory,
            place.id(),
            name,
        )
    };
    let (vsock, system, user) = tokio::try_join!(
        vsock,
        share(prepared.system, guest::SYSTEM_SHARE_TAG),
        share(prepared.user, guest::USER_SHARE_TAG),
    )?;
    fault::point("create.shares-launched")?;
    timeline.step("device processes run");

    let (vsock_process, vmm_end, ready) = vsock;
    let mut devices = vec![Device {
        name: "vsock device process",
        process: vsock_process,
    }];
    let mut shares = Vec::new();
    let mut tags = Vec::new();
    for (tag, share) in [
        (guest::SYSTEM_SHARE_TAG, system),
        (guest::USER_SHARE_TAG, user),
    ] {
        let Some((process, socket)) = share else {
            continue;
        };
        devices.push(Device {
            name: device_name(tag),
            process,
        });
        shares.push(vc_hypervisor::Share {
            tag: tag.into(),
            socket,
        });
        tags.push(tag);
    }
    let mut kernel_params = vec![format!("virtc.ready_port={}", guest::READY_PORT)];
    kernel_params.extend(prepared.config.vm.kernel_params.iter().cloned());
    let spec = VmSpec {
        sandbox: prepared.config.id.clone(),
        directory: directory.to_owned(),
        vcpus: prepared.config.vm.vcpus,
        memory: prepared.config.vm.memory,
        accelerator: prepared.accelerator,
        kernel: prepared.kernel.into(),
        initrd: prepared.initrd.into(),
        kernel_params,
        shares,
        vsock: Vsock::VhostUser {
            socket: vmm_end,
            host_socket: socket_of(&address),
        },
        disks: scratch
            .as_mut()
            .map(scratch_disk)
            .transpose()?
            .into_iter()
            .collect(),
        root_ports: prepared.config.vm.root_ports,
        console_log: log_file(directory, CONSOLE_LOG)?,
        vmm_log: log_file(directory, VMM_LOG)?,
    };
    let hypervisor = QemuHypervisor::new(runtime.qemu_config(users), Arc::clone(&launcher));
    let vm = hypervisor.launch(spec).await?;
    timeline.mark(ClockPoint::Spawned);
    fault::point("create.vmm-launched")?;
    Ok(Launched {
        config: prepared.config,
        containers: prepared.containers,
        machine: Machine::watch(launcher, vm, devices)?,
        ready,
        address,
        scratch,
        shares: tags,
        writable,
    })
}

/// What starts the sandbox's processes: in its cgroup, where it has one.
fn launcher(runtime: &Shared, place: &Place) -> Result<Launcher> {
    let cgroup = cgroups::make_sandbox(&place.directory().read()?)?;
    let joined = cgroup.map(|cgroup| cgroup.join_files()).transpose()?;
    Ok(Launcher::start_in(
        &runtime.program,
        joined.unwrap_or_default(),
    )?)
}

async fn start_share(
    launcher: &Launcher,
    virtiofsd: Option<&vc_storage::Virtiofsd>,
    plan: Option<SharePlan>,
    directory: &Path,
    sandbox: &SandboxId,
    name: &'static str,
) -> Result<Option<(vc_launch::LaunchedProcess, std::os::fd::OwnedFd)>> {
    let (Some(virtiofsd), Some(plan)) = (virtiofsd, plan) else {
        return Ok(None);
    };
    let log = process_log::start(directory, sandbox, name)?;
    let share = Share::start(launcher, virtiofsd, plan, directory, Some(log)).await?;
    let (process, socket) = share.into_parts();
    Ok(socket.map(|socket| (process, socket)))
}

/// What the state calls the process of the share with the invoker's files.
pub(crate) const USER_SHARE: &str = "virtiofsd of the user's files";

fn device_name(tag: &str) -> &'static str {
    if tag == guest::SYSTEM_SHARE_TAG {
        "virtiofsd of the host's system"
    } else {
        USER_SHARE
    }
}

fn scratch_disk(disk: &mut ScratchDisk) -> Result<Disk> {
    Ok(Disk {
        image: disk.descriptor()?,
        serial: guest::SCRATCH_SERIAL.into(),
        read_only: false,
        scratch: true,
    })
}

fn socket_of(address: &AgentAddress) -> std::path::PathBuf {
    match address {
        AgentAddress::HybridVsock { socket } => socket.clone(),
        _ => std::path::PathBuf::new(),
    }
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
