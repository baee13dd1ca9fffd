//! QEMU on this host, with a process for the vsock and for each share.

mod launch;
mod shares;
mod waiting;

use std::fs::File;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use guest_image::GuestAssets;
use rustix::process::geteuid;
use vc_config::HostFacts;
use vc_hypervisor::qemu::{self, CAPABILITIES};
use vc_hypervisor::{Capabilities, DriverState, HostDevices, ServedTypes, Vm};
use vc_store::SandboxRecord;
use vc_types::{ContainerId, SandboxId};

pub(crate) use launch::{SYSTEM_SHARE, USER_SHARE, VSOCK_DEVICE};

use super::{Boot, Planned, Surroundings};
use crate::container::placement::Placement;
use crate::error::{Error, Result};
use crate::runtime::Shared;
use crate::sandbox::config::{SandboxConfig, Scratch};
use crate::sandbox::network::IntendedNetwork;
use shares::SharePlans;

/// Host memory that a VMM and its device processes need besides the guest's.
const OVERHEAD_MIB: u64 = 64;

/// Where distributions put the program that formats the scratch disk.
pub(crate) const MKFS: [&str; 3] = [
    "/usr/sbin/mkfs.ext4",
    "/sbin/mkfs.ext4",
    "/usr/bin/mkfs.ext4",
];

/// The surroundings of a VM of QEMU's.
pub(crate) struct Host;

/// Everything that a sandbox needs of the host exists and is open.
struct HostPlan {
    assets: GuestAssets,
    boot: Boot,
    shares: SharePlans,
    mkfs: Option<PathBuf>,
    network: Option<IntendedNetwork>,
}

#[async_trait]
impl Surroundings for Host {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn serve_files(&self) -> bool {
        true
    }

    /// What is short on the host is said before anything boots.
    fn check(&self, config: &SandboxConfig) -> Result<()> {
        if !geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let (host, vm) = (HostFacts::read()?, config.vm.wanted());
        if vm.memory.mib() + OVERHEAD_MIB > host.memory_available.mib() {
            return Err(Error::Memory {
                wanted: vm.memory,
                available: host.memory_available,
            });
        }
        if vm.vcpus > host.cpus {
            return Err(Error::Processors {
                wanted: vm.vcpus,
                available: host.cpus,
            });
        }
        Ok(())
    }

    fn plan(
        &self,
        runtime: &Shared,
        config: &SandboxConfig,
        containers: &[(ContainerId, Placement)],
    ) -> Result<Box<dyn Planned>> {
        let host = &runtime.config;
        let choice = config.vm.accelerator;
        let accelerator = HostDevices::default().accelerator(choice)?.accelerator;
        let assets = open_assets(host)?;
        let boot = Boot {
            accelerator,
            kernel: open(&assets.vmlinux())?,
            initrd: open(&assets.initrd())?,
            served_types: match assets.manifest().types_by_class {
                true => ServedTypes::ByClass,
                false => ServedTypes::ByNumber,
            },
        };
        let shares = SharePlans::of(host, config, containers, boot.served_types)?;
        let mkfs = match config.scratch {
            Scratch::Disk { .. } => Some(find_mkfs()?),
            Scratch::Memory { .. } => None,
        };
        let network = IntendedNetwork::of(runtime, config, CAPABILITIES)?;
        Ok(Box::new(HostPlan {
            assets,
            boot,
            shares,
            mkfs,
            network,
        }))
    }

    async fn attach(
        &self,
        config: &vc_config::Config,
        _sandbox: &SandboxId,
        state: &DriverState,
    ) -> Result<Box<dyn Vm>> {
        Ok(qemu::attach(state, launch::qemu_limits(config))?)
    }

    /// All of it is processes.
    fn end(&self, _sandbox: &SandboxId) {}
}

impl HostPlan {
    fn describe(&self, record: &mut SandboxRecord) {
        let manifest = self.assets.manifest();
        for (name, asset) in [("vmlinux", &manifest.vmlinux), ("initrd", &manifest.initrd)] {
            record
                .assets
                .insert(name.to_owned(), asset.sha256.to_string());
        }
    }
}

fn open_assets(config: &vc_config::Config) -> Result<GuestAssets> {
    let dir = config.guest.find_assets().ok_or_else(|| Error::Missing {
        what: "a guest kernel and initrd",
        tried: vc_config::Guest::ASSETS_CANDIDATES.join(", "),
    })?;
    Ok(GuestAssets::open(&dir)?)
}

/// Opened once: what the VMM boots is what was checked, whatever the names mean later.
fn open(path: &Path) -> Result<File> {
    let failed = |source| Error::System {
        attempt: format!("open {}", path.display()),
        source,
    };
    File::open(path).map_err(failed)
}

fn find_mkfs() -> Result<PathBuf> {
    let found = MKFS.iter().map(PathBuf::from).find(|path| path.is_file());
    found.ok_or_else(|| Error::Missing {
        what: "mkfs.ext4",
        tried: MKFS.join(", "),
    })
}
