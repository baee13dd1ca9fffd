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
use vc_types::{ByteSize, ContainerId, VmSize};

use super::devices::memory;
use super::guest::Guest;
use super::handle::SandboxHandle;
use crate::container::{ContainerConfig, Limits as Used, saved, update};
use crate::error::{Error, Result};
use crate::runtime::blocking;

/// Between two looks at how much memory a guest has taken: the VMM tells of it once a second at most.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Makes a machine as large as `size`, which has the device for it, and returns once its guest uses
/// all of it. One that is larger stays so. After an error it offers no more memory than before.
pub(super) async fn grow(vm: &dyn Vm, guest: &Guest, size: VmSize, limit: Duration) -> Result<()> {
    let before = vm.size().await?;
    let wanted = before.max(size);
    if wanted == before {
        return Ok(());
    }
    let grown = async {
        vm.resize(wanted).await?;
        if wanted.vcpus > before.vcpus {
            guest.online_vcpus(wanted.vcpus - before.vcpus).await?;
        }
        if wanted.memory > before.memory {
            let first = vm.growth().map_or(before, |growth| growth.first);
            let more = wanted.memory.bytes() - first.memory.bytes();
            guest.use_memory(ByteSize::from_bytes(more), limit).await?;
            until_taken(vm, guest, wanted, limit).await?;
        }
        Ok(())
    };
    let error = match grown.await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let memory_of_before = VmSize {
        memory: before.memory,
        ..wanted
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
    if let Some(device) = memory::missing(vm, size) {
        vm.plug(device).await?;
    }
    let grown = grow(vm, guest, size, limits.resize_ms.duration());
    guest.while_it_runs(grown).await
}

async fn until_taken(vm: &dyn Vm, guest: &Guest, wanted: VmSize, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        let has = vm.size().await?;
        if has.memory >= wanted.memory {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(Error::NotTaken {
                sandbox: guest.sandbox.clone(),
                wanted: wanted.memory,
                has: has.memory,
                limit,
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
        Ok(self.vm(&record).await?.size().await?)
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
        let operation = self.begin(Verb::Update).await?;
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
        let Some(machine) = self.resizable(&record).await? else {
            return Ok(());
        };
        let wanted = machine.wanted(self.limits(&record, changed)?).await?;
        if machine.growth.first == machine.growth.first.max(wanted) {
            return Ok(());
        }
        if let Some(device) = memory::missing(&*machine.vm, wanted) {
            memory::plug(operation, &*machine.vm, device).await?;
        }
        let limit = self.0.runtime.config.limits.resize_ms.duration();
        let grown = grow(&*machine.vm, &self.0.guest, wanted, limit);
        self.0.guest.while_it_runs(grown).await
    }

    /// Asks the guest for memory that the limits of its containers do not need any more. It is the
    /// host's again when the guest has found it, so that nobody waits for it.
    pub(super) async fn give_back(&self, _operation: &OperationGuard) {
        let asked = async {
            let record = self.0.directory.read()?;
            let Some(machine) = self.resizable(&record).await? else {
                return Ok(());
            };
            if !memory::is_there(&*machine.vm) {
                return Ok(());
            }
            let wanted = machine.wanted(self.limits(&record, None)?).await?;
            if wanted.memory < machine.vm.size().await?.memory {
                machine.vm.resize(wanted).await?;
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

    /// What all containers may use; `changed` stands for the one of its name.
    fn limits(&self, record: &SandboxRecord, changed: Option<&ContainerConfig>) -> Result<Used> {
        let directory = self.0.directory.path();
        let others = record.containers.iter().filter(|(id, entry)| {
            !entry.creating && changed.is_none_or(|changed| changed.id != **id)
        });
        let others = others.map(|(id, _)| Ok(Used::of(&saved::load(directory, id)?.spec)));
        let changed = changed.map(|changed| Ok(Used::of(&changed.spec)));
        let all: Result<Vec<Used>> = others.chain(changed).collect();
        Ok(all?.into_iter().sum())
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
            true => self.vm.size().await?.memory,
            false => self.growth.first.memory,
        };
        let demand = used.demand();
        let wanted = demand.raise_beside(has, self.least, &HostFacts::read()?);
        Ok(wanted.min(self.growth.largest))
    }
}
