//! A machine that grows with the limits of its containers, and gets smaller with them.
//!
//! Processors that have come stay: one that has nothing to do costs nothing. Memory is offered to the
//! guest, and asked back from it; what it does not give back yet, it gives back when it can.

use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use tokio::time::{Instant, sleep};
use vc_config::{HostFacts, Limits};
use vc_hypervisor::{Growth, Vm};
use vc_store::{OperationGuard, SandboxRecord, Verb};
use vc_types::{ByteSize, ContainerId, ContainerState, VmSize};

use super::devices::{memory, plug_within};
use super::guest::Guest;
use super::handle::SandboxHandle;
use crate::container::pod::holds_a_pod;
use crate::container::{ContainerConfig, Limits as Used, saved, update};
use crate::error::{Error, Result, chain};
use crate::runtime::blocking;

/// Between two looks at how much memory a guest has taken: the VMM tells of it once a second at most.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Makes a machine as large as `size`, which has the device for it, and returns once its guest uses
/// all of it. One that is larger stays so. Processors that do not come are no error: who may use more
/// of them than there are uses those. After an error it offers no more memory than before.
async fn grow(vm: &dyn Vm, guest: &Guest, size: VmSize, limit: Duration) -> Result<()> {
    let Some(growth) = vm.growth() else {
        return Ok(());
    };
    let before = vm.size().await?;
    let offered = before.offered.max(size);
    let grown = async {
        if offered != before.offered {
            vm.resize(offered).await?;
        }
        if size.vcpus > growth.first.vcpus {
            let working = guest.grow(size.vcpus, ByteSize::from_bytes(0), limit);
            if let Err(error) = working.await {
                let error = chain(&error);
                tracing::warn!(sandbox = %guest.sandbox, error, "it has fewer processors");
            }
        }
        if size.memory > growth.first.memory {
            let end = Instant::now() + limit;
            let more = growth.more(offered.memory);
            guest.grow(0, more, limit).await?;
            let wanted = growth.first.memory.bytes() + more.bytes();
            until_taken(vm, guest, ByteSize::from_bytes(wanted), end).await?;
        }
        Ok(())
    };
    let error = match grown.await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let memory_of_before = VmSize {
        memory: before.offered.memory,
        ..offered
    };
    if let Err(error) = vm.resize(memory_of_before).await {
        tracing::warn!(sandbox = %guest.sandbox, %error, "memory is still offered to the guest");
    }
    Err(error)
}

/// The same for a machine that has just come, and that nobody else knows.
pub(super) async fn grow_new(
    vm: &dyn Vm,
    guest: &Guest,
    size: VmSize,
    limits: &Limits,
) -> Result<()> {
    if vm
        .growth()
        .is_none_or(|growth| growth.first == growth.first.max(size))
    {
        return Ok(());
    }
    let grown = async {
        if let Some(device) = memory::missing(vm, size) {
            vm.plug(device).await?;
        }
        grow(vm, guest, size, limits.resize_ms.duration()).await
    };
    let grown = guest.while_it_runs(grown).await;
    grown.map_err(|source| Error::NotGrown {
        sandbox: guest.sandbox.clone(),
        wanted: size,
        source: Box::new(source),
    })
}

/// The guest has said that it uses so much; the VMM's account decides.
async fn until_taken(vm: &dyn Vm, guest: &Guest, wanted: ByteSize, end: Instant) -> Result<()> {
    loop {
        let has = vm.size().await?.taken;
        if has >= wanted {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(Error::NotTaken {
                sandbox: guest.sandbox.clone(),
                wanted,
                has,
            });
        }
        sleep(LOOK_AGAIN).await;
    }
}

impl SandboxHandle {
    /// How large its machine is now: processors, and memory that the guest has taken.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], and [`Error::Hypervisor`] where the VMM does not say it or is older than
    /// this can be asked of it.
    pub async fn machine_size(&self) -> Result<VmSize> {
        let record = self.0.directory.read()?;
        let size = self.vm(&record).await?.size().await?;
        Ok(VmSize {
            memory: size.taken,
            ..size.offered
        })
    }

    /// Changes what a container may use of the guest. Where its limits, and those of the others, are more
    /// than the machine has, this grows first, as far as it can and the host has it; where they are less
    /// than before, it gives memory back. It can grow to `vm.vcpus_max` and `vm.memory_max`.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], [`Error::Protocol`] for values that cannot be, [`Error::Agent`] when
    /// the guest refuses them, [`Error::Hypervisor`] and [`Error::NotTaken`] when the machine does not
    /// grow. The container keeps its limits then.
    pub async fn update_container(
        &self,
        container: &ContainerId,
        resources: &LinuxResources,
    ) -> Result<()> {
        self.existing(container)?;
        let (sandbox, id) = (self.clone(), container.clone());
        let resources = resources.clone();
        // To its end, also where whoever asked gives it up: half of it would stay.
        let updated = tokio::spawn(async move { sandbox.update(&id, &resources).await });
        updated.await.map_err(|error| Error::System {
            attempt: format!("change the limits of container {container}"),
            source: std::io::Error::other(error),
        })?
    }

    async fn update(&self, container: &ContainerId, resources: &LinuxResources) -> Result<()> {
        let operation = self.begin(Verb::Update).await?;
        // It may have been removed meanwhile.
        self.existing(container)?;
        let mut config = saved::load(self.0.directory.path(), container)?;
        let unwritable = |source: serde_json::Error| Error::System {
            attempt: format!("write down the limits of container {container}"),
            source: source.into(),
        };
        update(&mut config.spec, resources).map_err(unwritable)?;
        self.grow_for(&operation, Some(&config)).await?;
        let updated = self.0.guest.update(container, resources).await;
        if updated.is_ok() {
            saved::replace(self.0.directory.path(), &config)?;
        }
        self.give_back(&operation).await;
        blocking(move || Ok(operation.commit(|_| {})?)).await?;
        updated
    }

    /// Grows the machine for its containers, and for one that is made or changed.
    pub(super) async fn grow_for(
        &self,
        operation: &OperationGuard,
        changed: Option<&ContainerConfig>,
    ) -> Result<()> {
        let record = self.0.directory.read()?;
        let used: Used = self.limits(&record, changed).into_iter().sum();
        if used == Used::default() {
            return Ok(());
        }
        let Some(machine) = self.resizable(&record).await? else {
            return Ok(());
        };
        let wanted = machine.wanted(used).await?;
        if machine.growth.first == machine.growth.first.max(wanted) {
            return Ok(());
        }
        if let Some(device) = memory::missing(&*machine.vm, wanted) {
            plug_within(operation, &*machine.vm, device).await?;
        }
        let limit = self.0.runtime.config.limits.resize_ms.duration();
        let grown = grow(&*machine.vm, &self.0.guest, wanted, limit);
        self.0.guest.while_it_runs(grown).await
    }

    /// Asks the guest for memory that the limits of its containers do not need any more. It is the
    /// host's again when the guest has found it, so that nobody waits for it. A part of an operation.
    pub(super) async fn give_back(&self, _operation: &OperationGuard) {
        let asked = async {
            let record = self.0.directory.read()?;
            let Some(machine) = self.resizable(&record).await? else {
                return Ok(());
            };
            if !memory::is_there(&*machine.vm) {
                return Ok(());
            }
            let used = self.limits(&record, None);
            // One without a limit may be using what the others do not need.
            if used.iter().any(Used::has_all_memory) {
                return Ok(());
            }
            let wanted = machine.wanted(used.into_iter().sum()).await?;
            let offered = machine.vm.size().await?.offered;
            if wanted.memory < offered.memory {
                // Processors stay.
                let memory = wanted.memory;
                machine.vm.resize(VmSize { memory, ..offered }).await?;
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = asked.await {
            tracing::warn!(sandbox = %self.id(), %error, "the machine keeps memory that it does not need");
        }
    }

    /// The machine, where it can have more than one size.
    async fn resizable(&self, record: &SandboxRecord) -> Result<Option<Resizable>> {
        let vm = self.vm(record).await?;
        let growth = vm.growth().filter(|growth| growth.first != growth.largest);
        let Some(growth) = growth else {
            return Ok(None);
        };
        // What it was asked to be at first holds for containers that are to come, too.
        let asked = saved::load_sandbox(self.0.directory.path())?.vm.wanted();
        Ok(Some(Resizable {
            vm,
            least: growth.first.max(asked).min(growth.largest),
            growth,
        }))
    }

    /// What each container may use that has not ended; `changed` stands for the one of its name. Of one
    /// that is being removed nothing is known any more.
    fn limits(&self, record: &SandboxRecord, changed: Option<&ContainerConfig>) -> Vec<Used> {
        let directory = self.0.directory.path();
        let others = record.containers.iter().filter(|(id, entry)| {
            let ends = entry.creating || entry.state == ContainerState::Stopped;
            !ends && changed.is_none_or(|changed| changed.id != **id)
        });
        let others = others.filter_map(|(id, _)| {
            let spec = saved::load(directory, id).ok()?.spec;
            (!holds_a_pod(&spec)).then(|| Used::of(&spec))
        });
        others
            .chain(changed.map(|changed| Used::of(&changed.spec)))
            .collect()
    }
}

/// A machine that can have more than one size.
struct Resizable {
    vm: Arc<dyn Vm>,
    least: VmSize,
    growth: Growth,
}

impl Resizable {
    /// The size in which so much can be used, as far as there is so much.
    async fn wanted(&self, used: Used) -> Result<VmSize> {
        let has = match memory::is_there(&*self.vm) {
            true => self.vm.size().await?.taken,
            false => self.growth.first.memory,
        };
        let demand = used.demand();
        let wanted = demand.raise_beside(has, self.least, &HostFacts::read()?);
        Ok(wanted.min(self.growth.largest))
    }
}
