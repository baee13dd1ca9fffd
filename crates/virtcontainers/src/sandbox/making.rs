//! The making of one container in a running sandbox: looked at, reserved, shared, made, written.

use vc_storage::{Access as ShareAccess, Source};
use vc_store::{ContainerRecord, DeviceProcess, OperationGuard, Verb, View};
use vc_types::{ProcessIdentity, SandboxState};

use super::cgroups;
use super::handle::SandboxHandle;
use super::process::Process;
use super::surroundings::SYSTEM_SHARE;
use crate::container::filter::{GuestFilters, PendingFilter};
use crate::container::placement::{Placement, ShareEntry};
use crate::container::{ContainerConfig, saved};
use crate::error::{Error, Result, chain};
use crate::fault;
use crate::runtime::blocking;
use crate::stream::Streams;

/// Makes it. Nothing is left of one that was not made.
pub(super) async fn make(sandbox: &SandboxHandle, config: ContainerConfig) -> Result<Process> {
    let operation = sandbox.begin(Verb::CreateContainer).await?;
    let making = Making::new(sandbox, operation, config)?;
    let id = making.config.id.clone();
    match making.steps().await {
        Ok(streams) => {
            let committed = making.commit().await;
            committed.map(|()| Process {
                sandbox: sandbox.clone(),
                container: id,
                exec: None,
                streams,
            })
        }
        Err(error) => {
            making.undo().await;
            Err(error)
        }
    }
}

/// A container that is being made.
struct Making<'a> {
    sandbox: &'a SandboxHandle,
    operation: OperationGuard,
    config: ContainerConfig,
    placement: Placement,
    /// Whether it is in the pid namespace that the sandbox's containers share.
    shared_pids: bool,
}

impl<'a> Making<'a> {
    /// Looks whether it can be; nothing is touched.
    fn new(
        sandbox: &'a SandboxHandle,
        operation: OperationGuard,
        config: ContainerConfig,
    ) -> Result<Self> {
        let record = operation.sandbox().read()?;
        // Another operation may have stopped it meanwhile.
        if View::of(&record).state == SandboxState::Stopped {
            return Err(Error::NotRunning {
                sandbox: sandbox.id().clone(),
            });
        }
        if record.containers.contains_key(&config.id) {
            return Err(Error::ContainerExists {
                sandbox: sandbox.id().clone(),
                container: config.id,
            });
        }
        let placement = sandbox
            .0
            .runtime
            .placement(&config, record.containers_made)?;
        let has_system = |process: &DeviceProcess| process.name == SYSTEM_SHARE;
        if placement.host_system && !record.processes.iter().any(has_system) {
            return Err(Error::Unsupported {
                what: "the host's system as the root of a container that comes later".into(),
            });
        }
        let directory = operation.sandbox().path();
        let shared_pids = record.throwaway && saved::load_sandbox(directory)?.shared_pids;
        Ok(Self {
            sandbox,
            operation,
            config,
            placement,
            shared_pids,
        })
    }

    async fn steps(&self) -> Result<Option<Streams>> {
        // Nobody knows here what its guest has made before.
        let filter = PendingFilter::begin(&self.placement.spec, GuestFilters::None);
        let sources = self.sources()?;
        let id = &self.config.id;
        let mut entry = self.config.record(0)?;
        entry.creating = true;
        entry.shared = sources.iter().map(|(name, ..)| name.clone()).collect();
        if let Some(path) = &self.config.cgroup {
            cgroups::plan_container(&mut entry, path)?;
        }
        self.operation
            .step_with(format!("container {id}"), |record| {
                entry.number = record.next_container();
                record.containers.insert(id.clone(), entry);
            })?;
        fault::point("create-container.reserved")?;
        saved::save(self.sandbox.0.directory.path(), &self.config)?;
        if !sources.is_empty() {
            let record = self.operation.sandbox().read()?;
            let added = self
                .sandbox
                .change_share(&record, move |share| share.add(sources));
            added.await?;
        }
        fault::point("create-container.shared")?;
        let grown = self.sandbox.grow_for(&self.operation, Some(&self.config));
        if let Err(error) = grown.await {
            // Limits are no claims: it has what there is.
            let error = chain(&error);
            tracing::warn!(container = %id, error, "its machine does not grow to its limits");
        }
        self.sandbox
            .plug_disks(&self.operation, &self.placement.disks)
            .await?;
        let guest = &self.sandbox.0.guest;
        let streams = guest
            .while_it_runs(async {
                let (placement, shared_pids) = (&self.placement, self.shared_pids);
                guest.create(id, placement, filter, shared_pids).await
            })
            .await?;
        let record = self.operation.sandbox().read()?;
        if let Some(entry) = record.containers.get(id) {
            cgroups::join_container(entry)?;
        }
        fault::point("create-container.made")?;
        Ok(streams)
    }

    /// Opens what of the host it gets.
    fn sources(&self) -> Result<Vec<(String, Source, ShareAccess)>> {
        let open = |entry: &ShareEntry| {
            let (source, access) = entry.open()?;
            Ok((entry.name.clone(), source, access))
        };
        self.placement.entries.iter().map(open).collect()
    }

    async fn commit(self) -> Result<()> {
        let id = self.config.id;
        let committed = blocking(move || {
            self.operation.commit(|record| {
                if let Some(entry) = record.containers.get_mut(&id) {
                    entry.creating = false;
                }
            })?;
            fault::point("create-container.written")
        });
        committed.await
    }

    /// Takes out what was made. What cannot be taken out stays marked, for the next operation.
    async fn undo(self) {
        let id = &self.config.id;
        let undone = async {
            let record = self.operation.sandbox().read()?;
            if !record.containers.contains_key(id) {
                return Ok(());
            }
            self.sandbox.take_out(&self.operation, &record, id).await?;
            self.operation.update(|record| {
                record.containers.remove(id);
            })?;
            self.sandbox.give_back(&self.operation).await;
            Ok::<(), Error>(())
        };
        if let Err(error) = undone.await {
            tracing::warn!(container = %id, %error, "the next operation takes out what is left");
        }
    }
}

impl ContainerConfig {
    /// How the state has it.
    pub(super) fn record(&self, number: u64) -> Result<ContainerRecord> {
        let process = self.spec.process().as_ref();
        let args = process.and_then(|process| process.args().clone());
        let mut entry = ContainerRecord::new(args.unwrap_or_default());
        entry.bundle = self.bundle.clone();
        entry.number = number;
        let annotations = self.spec.annotations().iter().flatten();
        entry.annotations = annotations
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if self.stand_in {
            entry.stand_in = Some(ProcessIdentity::current()?);
        }
        Ok(entry)
    }
}
