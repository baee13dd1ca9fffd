use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use guest_image::GuestAssets;
use rustix::process::geteuid;
use vc_config::HostFacts;
use vc_hypervisor::qemu::CAPABILITIES;
use vc_hypervisor::{Accelerator, HostDevices};
use vc_launch::User;
use vc_storage::{
    Access as ShareAccess, CachePolicy, Rights, SharePlan, Source, Virtiofsd, host_system,
};
use vc_store::SandboxRecord;
use vc_types::{ByteSize, ContainerId, SandboxUsers};

use super::super::cgroups;
use super::super::config::{SandboxConfig, Scratch};
use crate::container::placement::Placement;
use crate::error::{Error, Result};
use crate::runtime::Shared;

/// Host memory that a VMM and its device processes need besides the guest's.
const OVERHEAD_MIB: u64 = 64;

/// Where distributions put the program that formats the scratch disk.
pub(crate) const MKFS: [&str; 3] = [
    "/usr/sbin/mkfs.ext4",
    "/sbin/mkfs.ext4",
    "/usr/bin/mkfs.ext4",
];

/// A sandbox that can be: everything it needs exists and is open, and nothing was changed yet.
pub(crate) struct Prepared {
    pub(super) config: SandboxConfig,
    pub(super) containers: Vec<(ContainerId, Placement)>,
    pub(super) accelerator: Accelerator,
    pub(super) assets: GuestAssets,
    pub(super) kernel: File,
    pub(super) initrd: File,
    pub(super) virtiofsd: Option<Virtiofsd>,
    pub(super) system: Option<SharePlan>,
    pub(super) user: Option<SharePlan>,
    pub(super) mkfs: Option<PathBuf>,
    /// The runtime's state root.
    root: PathBuf,
}

impl Prepared {
    pub(super) fn new(runtime: &Arc<Shared>, config: SandboxConfig) -> Result<Self> {
        if !geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        check_size(&config)?;
        let host = &runtime.config;
        let choice = config.vm.accelerator;
        let accelerator = HostDevices::default().accelerator(choice)?.accelerator;
        let assets = open_assets(host)?;
        let kernel = open(&assets.vmlinux())?;
        let initrd = open(&assets.initrd())?;

        let mut containers = Vec::new();
        let mut user: Option<SharePlan> = None;
        let mut host_system_wanted = false;
        if !config.throw_away {
            // More containers may come.
            let share = user.get_or_insert_with(|| invokers_share(host));
            share.grows = true;
            share.extended_attributes = true;
        }
        for (number, container) in (0..).zip(&config.containers) {
            if containers.iter().any(|(id, _)| *id == container.id) {
                return Err(Error::ContainerExists {
                    sandbox: config.id.clone(),
                    container: container.id.clone(),
                });
            }
            let placement = Placement::of(container, number)?;
            host_system_wanted |= placement.host_system;
            if !placement.entries.is_empty() {
                add_entries(user.get_or_insert_with(|| invokers_share(host)), &placement)?;
            }
            containers.push((container.id.clone(), placement));
        }
        let system = match host_system_wanted {
            true => {
                let mut plan = host_system::plan(Path::new("/"))?;
                plan.rights = Rights::NothingAs(SandboxUsers::of(&config.id).system_share());
                Some(plan)
            }
            false => None,
        };
        let virtiofsd = match system.is_some() || user.is_some() {
            true => Some(open_virtiofsd(host)?),
            false => None,
        };
        let mkfs = match config.scratch {
            Scratch::Disk { .. } => Some(find_mkfs()?),
            Scratch::Memory { .. } => None,
        };
        Ok(Self {
            config,
            containers,
            accelerator,
            assets,
            kernel,
            initrd,
            virtiofsd,
            system,
            user,
            mkfs,
            root: runtime.store.root().to_owned(),
        })
    }

    /// Notes in the state what is known before anything runs.
    pub(super) fn describe(&self, record: &mut SandboxRecord) -> Result<()> {
        record.throwaway = self.config.throw_away;
        let manifest = self.assets.manifest();
        for (name, asset) in [("vmlinux", &manifest.vmlinux), ("initrd", &manifest.initrd)] {
            record
                .assets
                .insert(name.to_owned(), asset.sha256.to_string());
        }
        record.annotations = self.config.annotations.clone();
        self.describe_containers(record)
    }

    /// The same for a sandbox that had a machine before.
    pub(in super::super) fn describe_again(&self, record: &mut SandboxRecord) -> Result<()> {
        // Planned again while they are there, they would count as somebody else's.
        let left = cgroups::remove_all(record);
        if !left.is_empty() {
            return Err(Error::Left {
                sandbox: record.id().clone(),
                left: left.join(", "),
            });
        }
        record.containers.clear();
        record.containers_made = 0;
        self.describe_containers(record)
    }

    fn describe_containers(&self, record: &mut SandboxRecord) -> Result<()> {
        if self.config.cgroup {
            cgroups::plan_sandbox(record, &self.root)?;
        }
        for (container, (_, placement)) in self.config.containers.iter().zip(&self.containers) {
            let mut entry = container.record(record.next_container())?;
            entry.shared = placement.entries.iter().map(|e| e.name.clone()).collect();
            if let Some(path) = &container.cgroup {
                cgroups::plan_container(&mut entry, path)?;
            }
            record.containers.insert(container.id.clone(), entry);
        }
        Ok(())
    }
}

/// What is short on the host is said before anything boots.
fn check_size(config: &SandboxConfig) -> Result<()> {
    let (host, vm) = (HostFacts::read()?, &config.vm);
    let min = ByteSize::from_mib(CAPABILITIES.memory_mib_min);
    if vm.memory < min {
        let wanted = vm.memory;
        return Err(Error::MemoryMin { wanted, min });
    }
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

fn open_virtiofsd(config: &vc_config::Config) -> Result<Virtiofsd> {
    let path = config
        .share
        .find_virtiofsd()
        .ok_or_else(|| Error::Missing {
            what: "virtiofsd",
            tried: vc_config::Share::VIRTIOFSD_CANDIDATES.join(", "),
        })?;
    Ok(Virtiofsd::open(&path)?)
}

fn find_mkfs() -> Result<PathBuf> {
    let found = MKFS.iter().map(PathBuf::from).find(|path| path.is_file());
    found.ok_or_else(|| Error::Missing {
        what: "mkfs.ext4",
        tried: MKFS.join(", "),
    })
}

/// The share of what the invoker names, which is root for now.
fn invokers_share(config: &vc_config::Config) -> SharePlan {
    let user = User {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };
    let mut plan = SharePlan::new("the share of the invoker's files", Rights::Invoker(user));
    plan.cache = match config.share.cache {
        vc_config::ShareCache::Auto => CachePolicy::Auto,
        vc_config::ShareCache::Always => CachePolicy::Always,
    };
    plan
}

fn add_entries(share: &mut SharePlan, placement: &Placement) -> Result<()> {
    for entry in &placement.entries {
        let access = match entry.read_only {
            true => ShareAccess::ReadOnly,
            false => ShareAccess::ReadWrite,
        };
        share.add(entry.name.clone(), Source::open(&entry.source)?, access);
        share.extended_attributes |= !entry.read_only;
    }
    Ok(())
}
