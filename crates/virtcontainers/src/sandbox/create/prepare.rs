use std::path::Path;
use std::sync::Arc;

use vc_store::SandboxRecord;
use vc_types::{ByteSize, ContainerId};

use super::super::config::SandboxConfig;
use super::super::surroundings::Planned;
use super::super::vsock::VsockSockets;
use crate::container::placement::Placement;
use crate::error::{Error, Result};
use crate::runtime::Shared;

/// Bytes of a Unix socket's path, see unix(7).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A sandbox that can be: everything it needs exists and is open, and nothing was changed yet.
pub(crate) struct Prepared {
    pub(super) config: SandboxConfig,
    pub(super) containers: Vec<(ContainerId, Placement)>,
    pub(super) surroundings: Box<dyn Planned>,
}

impl Prepared {
    pub(super) fn new(runtime: &Arc<Shared>, config: SandboxConfig) -> Result<Self> {
        let surroundings = runtime.driver.surroundings();
        check_memory(surroundings.capabilities().memory_mib_min, &config)?;
        surroundings.check(&config)?;
        check_socket_path(runtime.store.root(), &config)?;
        let containers = (0..)
            .zip(&config.containers)
            .map(|(number, one)| Ok((one.id.clone(), runtime.placement(one, number)?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            surroundings: surroundings.plan(runtime, &config, &containers)?,
            config,
            containers,
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
        record.containers.clear();
        record.containers_made = 0;
        self.describe_containers(record)
    }

    fn describe_containers(&self, record: &mut SandboxRecord) -> Result<()> {
        for (container, (_, placement)) in self.config.containers.iter().zip(&self.containers) {
            let mut entry = container.record(record.next_container())?;
            entry.shared = placement.entries.iter().map(|e| e.name.clone()).collect();
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

/// The address of a Unix socket holds 107 bytes.
fn check_socket_path(root: &Path, config: &SandboxConfig) -> Result<()> {
    let longest = VsockSockets::longest_path(&root.join(&config.id));
    match longest.as_os_str().len() {
        0..=SOCKET_PATH_BYTES_MAX => Ok(()),
        _ => Err(Error::LongName {
            sandbox: config.id.clone(),
            root: root.to_owned(),
        }),
    }
}
