use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use vc_hypervisor::qemu::{QemuConfig, QemuHypervisor, QemuLimits, TcgThreads, VmmUser};
use vc_hypervisor::{ServedTypes, Vsock};
use vc_launch::Launcher;
use vc_storage::{Formatter, ScratchDisk, Share, SharePlan};
use vc_store::SandboxRecord;
use vc_types::{AgentAddress, SandboxId, SandboxUsers, Timeline, guest};

use super::super::{Planned, Standing};
use super::HostPlan;
use crate::error::Result;
use crate::fault;
use crate::runtime::Shared;
use crate::sandbox::cgroups;
use crate::sandbox::config::{SandboxConfig, Scratch};
use crate::sandbox::machine::Device;
use crate::sandbox::network::{IntendedNetwork, MadeNetwork};
use crate::sandbox::place::Place;
use crate::sandbox::process_log;
use crate::sandbox::vsock::VsockSockets;

/// What the state calls the process of the share with the invoker's files.
pub(crate) const USER_SHARE: &str = "share of the user's files";

/// What it calls that of the share with the host's system.
pub(crate) const SYSTEM_SHARE: &str = "share of the host's system";

/// What it calls that of the vsock device.
pub(crate) const VSOCK_DEVICE: &str = "vsock device process";

#[async_trait]
impl Planned for HostPlan {
    fn describe(&self, record: &mut SandboxRecord) {
        HostPlan::describe(self, record);
    }

    fn waiting_key(&self, runtime: &Shared, config: &SandboxConfig) -> Result<Option<String>> {
        self.key(runtime, config)
    }

    fn take_network(&mut self) -> Option<IntendedNetwork> {
        self.network.take()
    }

    fn is_writable(&self) -> bool {
        self.shares.are_writable()
    }

    async fn start(
        self: Box<Self>,
        runtime: &Shared,
        place: &Place,
        config: &SandboxConfig,
        timeline: &mut Timeline,
    ) -> Result<Standing> {
        let directory = place.path();
        let users = SandboxUsers::of(place.id());
        let launcher = Arc::new(launcher(runtime, place)?);
        let sockets = VsockSockets::create(directory, users.vsock())?;
        fault::point("create.sockets")?;
        let host_socket = socket_of(&sockets.address);

        let scratch = match (&config.scratch, &self.mkfs) {
            (Scratch::Disk { size }, Some(mkfs)) => {
                let formatter = Formatter::new(Arc::clone(&launcher), mkfs.clone());
                let disk = ScratchDisk::create(formatter, &runtime.config.scratch.dir, *size)?;
                Some(Arc::new(disk))
            }
            _ => None,
        };
        fault::point("create.scratch-made")?;
        let vsock = async {
            let log = process_log::start(directory, place.id(), "vsock-device")?;
            let started = sockets.launch(&launcher, &runtime.program, log).await;
            fault::point("create.vsock-launched")?;
            started
        };
        let (plans, network) = (self.shares, self.network);
        let by_class = self.boot.served_types == ServedTypes::ByClass;
        let writable = plans.are_writable();
        let share = |mut plan: Option<SharePlan>, tag: &'static str| {
            if let Some(plan) = &mut plan {
                plan.tag = by_class.then(|| tag.to_owned());
            }
            start_share(
                &launcher,
                &runtime.program,
                plan,
                directory,
                place.id(),
                tag,
            )
        };
        let network = async {
            match network {
                Some(network) => network.make(&launcher, place).await,
                None => Ok(MadeNetwork::default()),
            }
        };
        let (network, vsock, system, user) = tokio::try_join!(
            network,
            vsock,
            share(plans.system, guest::SYSTEM_SHARE_TAG),
            share(plans.user, guest::USER_SHARE_TAG),
        )?;
        fault::point("create.shares-launched")?;
        timeline.step("device processes run");

        let (vsock_process, vmm_end, ready) = vsock;
        let mut standing = Standing {
            hypervisor: Box::new(QemuHypervisor::new(
                qemu_config(&runtime.config, users),
                Arc::clone(&launcher),
            )),
            launcher: Some(launcher),
            devices: vec![Device {
                name: VSOCK_DEVICE,
                process: vsock_process,
            }],
            boot: self.boot,
            vsock: Vsock::VhostUser {
                socket: vmm_end,
                host_socket,
            },
            ready,
            network: network.attached,
            guest_network: network.guest,
            nics: network.nics,
            shares: Vec::new(),
            tags: Vec::new(),
            scratch,
            writable,
        };
        standing.devices.extend(network.device);
        for (tag, share) in [
            (guest::SYSTEM_SHARE_TAG, system),
            (guest::USER_SHARE_TAG, user),
        ] {
            let Some((process, socket)) = share else {
                continue;
            };
            standing.devices.push(Device {
                name: device_name(tag),
                process,
            });
            standing.shares.push(vc_hypervisor::Share {
                tag: tag.into(),
                socket,
            });
            standing.tags.push(tag);
        }
        Ok(standing)
    }
}

/// What starts the sandbox's processes: in its cgroup, where it has one.
fn launcher(runtime: &Shared, place: &Place) -> Result<Launcher> {
    let cgroup = cgroups::make_sandbox(&place.directory().read()?)?;
    let joined = cgroup.map(|cgroup| cgroup.join_files()).transpose()?;
    let joined = joined.unwrap_or_default();
    Ok(Launcher::start_in(&runtime.program, joined)?)
}

async fn start_share(
    launcher: &Launcher,
    program: &Path,
    plan: Option<SharePlan>,
    directory: &Path,
    sandbox: &SandboxId,
    name: &'static str,
) -> Result<Option<(vc_launch::LaunchedProcess, std::os::fd::OwnedFd)>> {
    let Some(plan) = plan else {
        return Ok(None);
    };
    let log = process_log::start(directory, sandbox, name)?;
    let share = Share::start(launcher, program, plan, directory, Some(log)).await?;
    let (process, socket) = share.into_parts();
    Ok(socket.map(|socket| (process, socket)))
}

fn device_name(tag: &str) -> &'static str {
    if tag == guest::SYSTEM_SHARE_TAG {
        SYSTEM_SHARE
    } else {
        USER_SHARE
    }
}

fn socket_of(address: &AgentAddress) -> std::path::PathBuf {
    match address {
        AgentAddress::HybridVsock { socket } => socket.clone(),
        _ => std::path::PathBuf::new(),
    }
}

fn qemu_config(config: &vc_config::Config, users: SandboxUsers) -> QemuConfig {
    let qemu = &config.hypervisor.qemu;
    QemuConfig {
        binary: qemu.find_path(),
        firmware: qemu.find_firmware(),
        limits: qemu_limits(config),
        user: VmmUser::Own {
            uid: users.vmm(),
            gid: users.vmm(),
        },
        tcg_threads: match qemu.tcg_threads {
            vc_config::TcgThreads::Auto => TcgThreads::Auto,
            vc_config::TcgThreads::Single => TcgThreads::Single,
            vc_config::TcgThreads::Multi => TcgThreads::Multi,
        },
        ..QemuConfig::default()
    }
}

/// How long QEMU may take, by the configuration.
pub(super) fn qemu_limits(config: &vc_config::Config) -> QemuLimits {
    QemuLimits {
        start: config.limits.launch_ms.duration(),
        command: config.limits.qmp_command_ms.duration(),
        unplug: config.limits.unplug_ms.duration(),
    }
}
