//! Devices that come to a running sandbox and go again.
//!
//! Plugging is one operation on the sandbox. The device has its place in the sandbox's state before
//! anything of it is in the machine, marked as coming: whoever begins the next operation takes out
//! what an interrupted one has left. A device ends with the machine, also when that is booted again.

mod image;
pub(super) mod memory;
pub(super) mod root;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use vc_hypervisor::{Disk, DriverState, HotDevice, HotDeviceKind, Nic, PlugPhase, Plugged, Vm};
use vc_store::{OperationGuard, SandboxRecord, Verb, View};
use vc_types::SandboxState;

use super::handle::SandboxHandle;
use crate::container::placement::ROOT_DISK_PREFIX;
use crate::container::saved;
use crate::error::{Error, Result};
use crate::runtime::blocking;

/// A device of the host that a running sandbox is to get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeviceConfig {
    /// A block device or a disk image.
    Block {
        /// On the host.
        path: PathBuf,
        /// Whether the guest can only read it.
        read_only: bool,
    },
    /// A PCI device, which the guest gets for itself.
    Vfio {
        /// Its address on the host, such as `0000:01:00.0`.
        address: String,
    },
}

/// A device that a running sandbox was given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Its name among those of the sandbox, never used twice. A disk has it as its serial number:
    /// the guest has it in `/sys/block/DISK/serial`, and the agent mounts `serial=ID`.
    pub id: String,
    /// What it is on the host; none where that cannot be read any more.
    pub config: Option<DeviceConfig>,
    /// Where the guest has it: slot and function of the bridge, and of the device behind it.
    pub pci_path: String,
    /// How far it is. One that the guest did not let go of is leaving, and can be removed again.
    pub phase: PlugPhase,
}

impl SandboxHandle {
    /// Adds a device while the sandbox runs. The guest may take a moment to find it.
    ///
    /// An image, and a block device that can be written, are this sandbox's alone from here on: what
    /// another one has is refused. When this is dropped before it is done, the device is removed
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for kinds that cannot be plugged, [`Error::Device`] for a path that is
    /// no disk or is in use, [`Error::NotRunning`], [`Error::Hypervisor`] when the machine has no
    /// place left or does not take it, and [`Error::Store`]. Nothing of it is in the sandbox then.
    ///
    /// ```no_run
    /// # async fn example(sandbox: virtcontainers::SandboxHandle) -> virtcontainers::Result<()> {
    /// use virtcontainers::DeviceConfig;
    ///
    /// let disk = DeviceConfig::Block { path: "/dev/vg/data".into(), read_only: false };
    /// let device = sandbox.add_device(&disk).await?;
    /// println!("the guest has it at {}, with serial number {}", device.pci_path, device.id);
    /// sandbox.remove_device(&device.id).await?;
    /// # Ok(()) }
    /// ```
    pub async fn add_device(&self, device: &DeviceConfig) -> Result<Device> {
        self.status()?;
        if let DeviceConfig::Vfio { address } = device {
            return Err(Error::Unsupported {
                what: format!("adding the PCI device {address} to a running sandbox"),
            });
        }
        let (tell, told) = oneshot::channel();
        let (sandbox, config) = (self.clone(), device.clone());
        tokio::spawn(async move {
            let added = sandbox.add(config).await;
            // Whoever asked has given it up.
            if let Err(Ok(device)) = tell.send(added)
                && let Err(error) = sandbox.remove_device(&device.id).await
            {
                tracing::warn!(device = device.id, %error, "given up, and not removed");
            }
        });
        told.await.map_err(|error| Error::System {
            attempt: "add a device".into(),
            source: std::io::Error::other(error),
        })?
    }

    /// Removes a device that was added: the guest is asked to let go of it, within
    /// `limits.unplug_ms`.
    ///
    /// # Errors
    ///
    /// [`Error::Hypervisor`] when there is no such device, or the guest keeps it: it is leaving
    /// then, and this can be called again. [`Error::NotRunning`], [`Error::Store`].
    pub async fn remove_device(&self, id: &str) -> Result<()> {
        self.unplug(id).await
    }

    /// The devices that were added, in the order in which they came, by the account of the host.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub fn devices(&self) -> Result<Vec<Device>> {
        let record = self.0.directory.read()?;
        // What a stopped machine had went with it.
        if View::of(&record).state == SandboxState::Stopped {
            return Ok(Vec::new());
        }
        let plugged = driver_state(&record)?.map(|state| state.plugged());
        let plugged = plugged.unwrap_or_default().into_iter();
        // Those of its network, and the roots of containers, are no devices that anybody has added.
        let plugged = plugged.filter(|device| {
            device.kind == HotDeviceKind::Disk && !device.id.starts_with(ROOT_DISK_PREFIX)
        });
        Ok(plugged.map(|device| self.device(device)).collect())
    }

    fn device(&self, plugged: Plugged) -> Device {
        let config = saved::load_device(self.0.directory.path(), &plugged.id);
        Device {
            config: config.ok(),
            id: plugged.id,
            pci_path: plugged.pci_path,
            phase: plugged.phase,
        }
    }

    async fn add(&self, config: DeviceConfig) -> Result<Device> {
        let DeviceConfig::Block { path, read_only } = config.clone() else {
            return Err(Error::Unsupported {
                what: format!("adding {config:?} to a running sandbox"),
            });
        };
        let image = blocking(move || image::open(&path, read_only)).await?;
        let operation = self.begin(Verb::Update).await?;
        let record = self.0.directory.read()?;
        let vm = self.vm(&record).await?;
        // Every operation has a number of its own.
        let id = format!("dev-{}", record.generation());
        let device = HotDevice::Disk(Disk {
            image,
            serial: id.clone(),
            read_only,
            scratch: false,
        });
        saved::save_device(self.0.directory.path(), &id, &config)?;
        match plug(operation, &*vm, device).await {
            Ok(plugged) => Ok(self.device(plugged)),
            Err(error) => {
                if !vm.plugged().iter().any(|device| device.id == id) {
                    saved::remove_device(self.0.directory.path(), &id)?;
                }
                Err(error)
            }
        }
    }

    /// Plugs a network device in, which `nic` makes with its name.
    pub(super) async fn plug_nic(
        &self,
        nic: impl FnOnce(String) -> Result<Nic>,
    ) -> Result<Plugged> {
        let operation = self.begin(Verb::Update).await?;
        let record = self.0.directory.read()?;
        let vm = self.vm(&record).await?;
        let id = format!("nic-{}", record.generation());
        plug(operation, &*vm, HotDevice::Nic(nic(id)?)).await
    }

    /// Takes a device out of the machine, and writes it down also where whoever asked gives it up.
    pub(super) async fn unplug(&self, id: &str) -> Result<()> {
        let (sandbox, device) = (self.clone(), id.to_owned());
        let unplugged = tokio::spawn(async move {
            let operation = sandbox.begin(Verb::Update).await?;
            let vm = sandbox.vm(&sandbox.0.directory.read()?).await?;
            let removed = vm.unplug(&device).await;
            commit(operation, vm.state()).await?;
            removed?;
            saved::remove_device(sandbox.0.directory.path(), &device)
        });
        unplugged.await.map_err(|error| Error::System {
            attempt: format!("take device {id} out"),
            source: std::io::Error::other(error),
        })?
    }

    /// Takes out the devices whose plugging was interrupted. One that cannot be taken out keeps
    /// nobody from anything else.
    pub(super) async fn take_out_devices(&self, operation: &OperationGuard) -> Result<()> {
        let record = self.0.directory.read()?;
        let state = driver_state(&record)?;
        let plugged = state.map(|state| state.plugged()).unwrap_or_default();
        let mut coming = plugged
            .into_iter()
            .filter(|device| {
                let is_memory = device.kind == HotDeviceKind::Memory;
                device.phase == PlugPhase::Coming
                    || (is_memory && device.phase == PlugPhase::Leaving)
            })
            .peekable();
        if coming.peek().is_none() || View::of(&record).state == SandboxState::Stopped {
            return Ok(());
        }
        let vm = self.vm(&record).await?;
        for device in coming {
            match vm.unplug(&device.id).await {
                Err(vc_hypervisor::Error::Stays { .. }) => {}
                Ok(()) => saved::remove_device(self.0.directory.path(), &device.id)?,
                Err(error) => {
                    tracing::warn!(device = device.id, %error, "what is left of it stays");
                }
            }
        }
        let state = vm.state();
        written(operation.update(|record| record.set_driver_state(Some(&state)))?)
    }

    /// The machine by what its state says of it, which is newer than what its keeper remembers.
    pub(super) async fn vm(&self, record: &SandboxRecord) -> Result<Arc<dyn Vm>> {
        let not_running = || Error::NotRunning {
            sandbox: self.id().clone(),
        };
        if View::of(record).state == SandboxState::Stopped {
            return Err(not_running());
        }
        let state = driver_state(record)?.ok_or_else(not_running)?;
        let runtime = &self.0.runtime;
        let surroundings = runtime.driver.surroundings();
        let vm = surroundings.attach(&runtime.config, self.id(), &state);
        Ok(Arc::from(vm.await?))
    }
}

/// Plugs a device in: the state says that it comes before the machine has anything of it, and that it
/// is there at the end of the operation. After an error nothing of it is left, but what the guest
/// does not let go of.
async fn plug(operation: OperationGuard, vm: &dyn Vm, device: HotDevice) -> Result<Plugged> {
    let id = vm.reserve(&device)?.id;
    let plugged = plug_reserved(&operation, vm, device).await;
    match (plugged, commit(operation, vm.state()).await) {
        (Ok(plugged), Ok(())) => Ok(plugged),
        (Ok(_), Err(error)) => {
            // Nobody would know of it.
            if let Err(error) = vm.unplug(&id).await {
                tracing::warn!(device = id, %error, "it was not written down, and stays");
            }
            Err(error)
        }
        (Err(error), committed) => {
            if let Err(error) = committed {
                tracing::warn!(device = id, %error, "what is left of it is not written down");
            }
            Err(error)
        }
    }
}

/// Plugs a device in as a part of an operation that goes on. What was plugged in before an error is in
/// the state.
pub(super) async fn plug_within(
    operation: &OperationGuard,
    vm: &dyn Vm,
    device: HotDevice,
) -> Result<()> {
    vm.reserve(&device)?;
    let plugged = plug_reserved(operation, vm, device).await;
    let state = vm.state();
    let stored = operation.update(|record| record.set_driver_state(Some(&state)));
    plugged?;
    written(stored?)
}

/// Plugs in a device that has its place in the machine.
async fn plug_reserved(
    operation: &OperationGuard,
    vm: &dyn Vm,
    device: HotDevice,
) -> Result<Plugged> {
    let state = vm.state();
    let stored = operation.step_with(format!("device {}", device.id()), |record| {
        record.set_driver_state(Some(&state))
    });
    stored.map_err(Error::from).and_then(written)?;
    Ok(vm.plug(device).await?)
}

/// Ends an operation with what is behind the machine's ports now.
async fn commit(operation: OperationGuard, state: DriverState) -> Result<()> {
    blocking(move || written(operation.commit(|record| record.set_driver_state(Some(&state)))?))
        .await
}

fn driver_state(record: &SandboxRecord) -> Result<Option<DriverState>> {
    record.driver_state().map_err(|source| Error::System {
        attempt: format!("read what is stored of the machine of {}", record.id()),
        source: source.into(),
    })
}

fn written(written: Result<(), serde_json::Error>) -> Result<()> {
    written.map_err(|source| Error::System {
        attempt: "write down the devices of a machine".into(),
        source: source.into(),
    })
}
