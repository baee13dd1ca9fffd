use std::path::PathBuf;
use std::sync::Arc;

use vc_hypervisor::Disk;
use vc_store::SandboxRecord;
use vc_types::{ByteSize, ContainerId};

use super::super::config::SandboxConfig;
use super::super::devices::root::open as open_disk;
use super::super::surroundings::Planned;
use super::super::{cgroups, network};
use crate::container::placement::Placement;
use crate::error::{Error, Result};
use crate::runtime::Shared;

/// A sandbox that can be: everything it needs exists and is open, and nothing was changed yet.
pub(crate) struct Prepared {
    pub(super) config: SandboxConfig,
    pub(super) containers: Vec<(ContainerId, Placement)>,
    /// The disks that are their roots.
    pub(super) disks: Vec<Disk>,
    pub(super) surroundings: Box<dyn Planned>,
    /// The runtime's state root.
    root: PathBuf,
}

impl Prepared {
    pub(super) fn new(runtime: &Arc<Shared>, config: SandboxConfig) -> Result<Self> {
        let surroundings = runtime.driver.surroundings();
        check_memory(surroundings.capabilities().memory_mib_min, &config)?;
        surroundings.check(&config)?;
        let mut containers: Vec<(ContainerId, Placement)> = Vec::new();
        for (number, container) in (0..).zip(&config.containers) {
            if containers.iter().any(|(id, _)| *id == container.id) {
                return Err(Error::ContainerExists {
                    sandbox: config.id.clone(),
                    container: container.id.clone(),
                });
            }
            let placement = runtime.placement(container, number)?;
            containers.push((container.id.clone(), placement));
        }
        let disks = containers
            .iter()
            .flat_map(|(_, placement)| &placement.disks);
        Ok(Self {
            disks: disks.map(open_disk).collect::<Result<_>>()?,
            surroundings: surroundings.plan(runtime, &config, &containers)?,
            config,
            containers,
            root: runtime.store.root().to_owned(),
        })
    }

    /// Notes in the state what is known before anything runs.
    pub(super) fn describe(&self, record: &mut SandboxRecord) -> Result<()> {
        record.throwaway = self.config.throw_away;
        self.surroundings.describe(record);
        record.annotations = self.config.annotations.clone();
        self.describe_containers(record)
    }

    /// The same for a sandbox that had a machine before.
    pub(in super::super) fn describe_again(&self, record: &mut SandboxRecord) -> Result<()> {
        // Planned again while they are there, they would count as somebody else's.
        let mut left = network::undo(record);
        left.extend(cgroups::remove_all(record));
        if !left.is_empty() {
            return Err(Error::Left {
                sandbox: record.id().clone(),
                left: left.join(", "),
            });
        }
        record.network = None;
        record.containers.clear();
        record.containers_made = 0;
        self.describe_containers(record)
    }

    fn describe_containers(&self, record: &mut SandboxRecord) -> Result<()> {
        cgroups::plan_sandbox(record, &self.config.cgroup, &self.root)?;
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

/// No guest boots with less.
fn check_memory(mib_min: u32, config: &SandboxConfig) -> Result<()> {
    let (wanted, min) = (config.vm.memory, ByteSize::from_mib(mib_min));
    match wanted < min {
        true => Err(Error::MemoryMin { wanted, min }),
        false => Ok(()),
    }
}
