//! A state root with its configuration, and all that is done with the sandboxes below it.

mod containers;
mod copy;
mod sandboxes;

use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::runtime::Process as ProcessSpec;
use vc_config::Config;
use vc_hypervisor::AcceleratorChoice;
use vc_network::HostNetwork;
use vc_store::{FailureRecords, Listed, Store, StoreLimits};
use vc_types::{ContainerId, SandboxId};

use crate::container::placement::Placement;
use crate::container::{ContainerConfig, Neighbours, saved};
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::factory::{Direct, Factory};
use crate::sandbox::{self, GcReport};

/// How a [`Runtime`] is opened.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// Paths, sizes and limits.
    pub config: Config,
    /// The program that answers `internal launch`, `internal change-tree`, `internal
    /// unpack` and `internal vsock-device`: virtc.
    pub program: PathBuf,
    /// What makes the machines.
    pub driver: Driver,
    /// Where they come from.
    pub factory: Arc<dyn Factory>,
    /// The host's network, for a caller that has gone into another network namespace itself: no
    /// sandbox may have it. Found by the host's first process where it is not given.
    pub host_network: Option<Arc<HostNetwork>>,
}

impl Default for RuntimeOptions {
    /// The default configuration, virtc where `make install` puts it, and QEMU, launched for each
    /// sandbox.
    fn default() -> Self {
        Self {
            config: Config::default(),
            program: "/usr/local/bin/virtc".into(),
            driver: Driver::qemu(),
            factory: Arc::new(Direct),
            host_network: None,
        }
    }
}

/// Everything that is done with sandboxes of one state root.
///
/// Two runtimes with different roots live in one process without knowing of each other.
///
/// ```
/// use virtcontainers::{Runtime, RuntimeOptions};
///
/// let mut options = RuntimeOptions::default();
/// options.config.runtime.root = "/run/virtcontainers-example".into();
/// let runtime = Runtime::open(options)?;
/// assert!(runtime.list_sandbox()?.is_empty());
/// # Ok::<(), virtcontainers::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Runtime {
    shared: Arc<Shared>,
}

/// What a runtime and its sandboxes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) program: PathBuf,
    pub(crate) driver: Driver,
    pub(crate) factory: Arc<dyn Factory>,
    pub(crate) store: Store,
    pub(crate) failures: FailureRecords,
    pub(crate) host_network: Option<Arc<HostNetwork>>,
}

impl Shared {
    /// Where everything of a container stands in the guest, see [`Placement::of`].
    pub(crate) fn placement(&self, config: &ContainerConfig, number: u64) -> Result<Placement> {
        let placement = Placement::of(config, number)?;
        Ok(match self.driver.surroundings().serve_files() {
            true => placement,
            false => placement.without_host_files(),
        })
    }
}

impl Runtime {
    /// A runtime with these options. Nothing is made on disk before the first sandbox.
    ///
    /// # Errors
    ///
    /// None today; a root that cannot be used is an error of the call that uses it.
    pub fn open(options: RuntimeOptions) -> Result<Self> {
        let RuntimeOptions {
            config,
            program,
            driver,
            factory,
            host_network,
        } = options;
        let limits = StoreLimits {
            lock: config.limits.lock_ms.duration(),
            take_over: config.limits.take_over_ms.duration(),
        };
        let store = Store::open(&config.runtime.root, limits);
        let kept = config.runtime.failures_kept as usize;
        let failures = FailureRecords::new(&config.runtime.failures, kept);
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                program,
                driver,
                factory,
                store,
                failures,
                host_network,
            }),
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// What the first process of a container was asked to be: the pattern for one that is added.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when there is no such sandbox, [`Error::System`] when the description
    /// cannot be read.
    pub fn container_process(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
    ) -> Result<ProcessSpec> {
        let config = saved::load(&self.sandbox_directory(sandbox)?, container)?;
        Ok(config.spec.process().clone().unwrap_or_default())
    }

    /// The sandbox that has the container.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownContainer`], and [`Error::Store`] when the state root cannot be read.
    pub fn find_container(&self, container: &ContainerId) -> Result<SandboxId> {
        // Mostly the container that a sandbox was made for, which has its name.
        if let Ok(sandbox) = SandboxId::new(container.as_str())
            && let Ok(directory) = self.shared.store.get(&sandbox)
            && let Ok(record) = directory.read()
            && record.containers.contains_key(container)
        {
            return Ok(sandbox);
        }
        let has = |listed: &Listed| match listed {
            Listed::Sandbox(record) => record.containers.contains_key(container),
            Listed::Broken { .. } => false,
        };
        let found = self.each_sandbox()?.find(has);
        found
            .map(|listed| listed.id().clone())
            .ok_or_else(|| Error::UnknownContainer {
                container: container.clone(),
            })
    }

    /// The containers of a sandbox that a new one can share namespaces with.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when there is no such sandbox or its state cannot be read.
    pub fn neighbours(&self, sandbox: &SandboxId) -> Result<Neighbours> {
        Ok(Neighbours::of(&self.status_sandbox(sandbox)?))
    }

    /// Removes what sandboxes whose keeper is gone have left, and ends machines that wait and that
    /// nobody can use; only names it when `dry_run`.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the state root cannot be read. What cannot be removed is in the
    /// report.
    pub fn gc(&self, dry_run: bool) -> Result<GcReport> {
        sandbox::gc(&self.shared, dry_run)
    }

    /// Where the directory of a sandbox is, for its logs.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when there is no such sandbox.
    pub fn sandbox_directory(&self, id: &SandboxId) -> Result<PathBuf> {
        Ok(self.shared.store.get(id)?.path().to_owned())
    }
}

/// What the configuration says about the accelerator, as the driver takes it.
pub fn accelerator_choice(accelerator: vc_config::Accelerator) -> AcceleratorChoice {
    match accelerator {
        vc_config::Accelerator::Auto => AcceleratorChoice::Auto,
        vc_config::Accelerator::Kvm => AcceleratorChoice::Kvm,
        vc_config::Accelerator::Tcg => AcceleratorChoice::Tcg,
    }
}

/// Runs what waits for the disk on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::System {
            attempt: "run a thread that waits for the disk".into(),
            source: std::io::Error::other(error),
        }),
    }
}
