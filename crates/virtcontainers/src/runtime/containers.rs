//! What is done with a container by its name and that of its sandbox.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxResources, Process as ProcessSpec};
use vc_store::{SandboxRecord, View};
use vc_types::{ContainerId, ContainerState, ExitStatus, SandboxId, SandboxState, Signal};

use super::Runtime;
use crate::container::{ContainerConfig, ContainerStatus};
use crate::error::{Error, Result};
use crate::fault;
use crate::sandbox::{self, GuestProcess, Process, SandboxHandle};
use crate::stats::ContainerStats;

impl Runtime {
    /// Where a container stands. Takes no lock and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], and [`Error::Store`] when there is no such sandbox or its state
    /// cannot be read.
    pub fn status_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
    ) -> Result<ContainerStatus> {
        let record: SandboxRecord = self.status_sandbox(sandbox)?;
        ContainerStatus::of(&record, container)
    }

    /// Makes a container in a running sandbox, see [`crate::SandboxHandle::create_container`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_sandbox`] and [`crate::SandboxHandle::create_container`].
    pub async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<Process> {
        self.fetch_sandbox(sandbox)
            .await?
            .create_container(config)
            .await
    }

    /// Fetches the sandbox of a container, for what is asked of the container.
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_sandbox`], and [`Error::ContainerEnded`] where the machine cannot be
    /// reached because it ends with the container.
    pub async fn fetch_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
    ) -> Result<SandboxHandle> {
        let fetched = self.fetch_sandbox(sandbox).await;
        let broken = matches!(&fetched, Err(Error::Agent(error)) if error.is_broken());
        // The end of a container is written down before its machine has ended.
        match broken.then(|| self.status_container(sandbox, container)) {
            Some(Ok(status)) if status.state == ContainerState::Stopped => {
                Err(Error::ContainerEnded {
                    container: container.clone(),
                })
            }
            _ => fetched,
        }
    }

    /// Removes a container; with `force`, one that runs too. Where its sandbox has no machine, what
    /// is known of the container goes.
    ///
    /// # Errors
    ///
    /// Those of [`crate::SandboxHandle::delete_container`].
    pub async fn delete_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        force: bool,
    ) -> Result<()> {
        let record = self.status_sandbox(sandbox)?;
        // An entry precedes whatever is made for it: without one there is nothing to wait for.
        if !record.containers.contains_key(container) {
            return Err(Error::NoContainer {
                sandbox: sandbox.clone(),
                container: container.clone(),
            });
        }
        let view = View::of(&record);
        if view.state == SandboxState::Stopped
            && sandbox::forget(&self.shared, sandbox, container).await?
        {
            return Ok(());
        }
        fault::point("delete-container.seen")?;
        match self.fetch_sandbox(sandbox).await {
            Ok(sandbox) => sandbox.delete_container(container, force).await,
            Err(error) => {
                sandbox::forgotten_where_ended(&self.shared, sandbox, container, Err(error)).await
            }
        }
    }

    /// Starts a container, see [`crate::SandboxHandle::start_container`].
    ///
    /// # Errors
    ///
    /// Those of [`crate::SandboxHandle::start_container`].
    pub async fn start_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
    ) -> Result<Option<String>> {
        self.fetch_container(sandbox, container)
            .await?
            .start_container(container)
            .await
    }

    /// Ends a container's processes politely, and by force after a while.
    ///
    /// # Errors
    ///
    /// Those of [`crate::SandboxHandle::stop_container`].
    pub async fn stop_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
    ) -> Result<ExitStatus> {
        let sandbox = self.fetch_container(sandbox, container).await?;
        sandbox.stop_container(container, false).await
    }

    /// Adds a process to a running container, see [`crate::SandboxHandle::enter_container`].
    ///
    /// # Errors
    ///
    /// Those of [`crate::SandboxHandle::enter_container`].
    pub async fn enter_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        process: &ProcessSpec,
    ) -> Result<Process> {
        let sandbox = self.fetch_container(sandbox, container).await?;
        sandbox.enter_container(container, process).await
    }

    /// Sends a signal to a container's first process, or to all of them.
    ///
    /// # Errors
    ///
    /// Those of [`crate::SandboxHandle::kill_container`].
    pub async fn kill_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        signal: Signal,
        all: bool,
    ) -> Result<()> {
        let sandbox = self.fetch_container(sandbox, container).await?;
        sandbox.kill_container(container, signal, all).await
    }

    /// The processes of a container as the guest knows them.
    ///
    /// # Errors
    ///
    /// Those of [`crate::SandboxHandle::process_list_container`].
    pub async fn process_list_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
    ) -> Result<Vec<GuestProcess>> {
        let sandbox = self.fetch_container(sandbox, container).await?;
        sandbox.process_list_container(container).await
    }

    /// What a container has used of the guest.
    ///
    /// # Errors
    ///
    /// Those of [`crate::SandboxHandle::stats_container`].
    pub async fn stats_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
    ) -> Result<ContainerStats> {
        let sandbox = self.fetch_container(sandbox, container).await?;
        sandbox.stats_container(container).await
    }

    /// What each running container of a sandbox has used of the guest.
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_sandbox`] and [`crate::SandboxHandle::stats`].
    pub async fn stats_sandbox(
        &self,
        sandbox: &SandboxId,
    ) -> Result<BTreeMap<ContainerId, Result<ContainerStats>>> {
        self.fetch_sandbox(sandbox).await?.stats().await
    }

    /// Changes what a container may use.
    ///
    /// # Errors
    ///
    /// Those of [`crate::SandboxHandle::update_container`].
    pub async fn update_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        resources: &LinuxResources,
    ) -> Result<()> {
        let sandbox = self.fetch_container(sandbox, container).await?;
        sandbox.update_container(container, resources).await
    }

    /// Stops the processes of a container where they are.
    ///
    /// # Errors
    ///
    /// Those of [`crate::SandboxHandle::pause_container`].
    pub async fn pause_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
    ) -> Result<()> {
        self.fetch_container(sandbox, container)
            .await?
            .pause_container(container)
            .await
    }

    /// Lets the processes of a paused container go on.
    ///
    /// # Errors
    ///
    /// Those of [`crate::SandboxHandle::resume_container`].
    pub async fn resume_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
    ) -> Result<()> {
        self.fetch_container(sandbox, container)
            .await?
            .resume_container(container)
            .await
    }

    /// Cleans up after a container whose keeper may have ended: it is stopped and removed, and
    /// with the last container its sandbox too. With `force`, an error does not keep the next step
    /// from being tried.
    ///
    /// # Errors
    ///
    /// The first error of a step, and with `force` [`Error::Left`] with everything that could not
    /// be cleaned. What is not there is clean.
    pub async fn cleanup_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        force: bool,
    ) -> Result<()> {
        let mut left = Vec::new();
        let mut step = |done: Result<()>| match done {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) if force => {
                left.push(error.to_string());
                Ok(())
            }
            done => done,
        };
        if let Err(error) = self.status_sandbox(sandbox)
            && error.is_not_found()
        {
            return Ok(());
        }
        step(self.delete_container(sandbox, container, true).await)?;
        // By force, one that cannot be removed does not keep its sandbox.
        let last = self.status_sandbox(sandbox).is_ok_and(|record| {
            let mut others = record.containers.keys();
            others.all(|other| force && other == container)
        });
        if last {
            step(self.stop_sandbox(sandbox, force).await)?;
            let deleted = self.delete_sandbox(sandbox, force);
            let all_went = deleted.is_ok();
            step(deleted.map(drop))?;
            if all_went {
                // What could not be removed alone went with its sandbox.
                left.clear();
            }
        }
        match left.is_empty() {
            true => Ok(()),
            false => Err(Error::Left {
                sandbox: sandbox.clone(),
                left: left.join("; "),
            }),
        }
    }
}
