//! What is done with a sandbox by its name.

use vc_agent_client::network::IpVersion;
use vc_store::{Listed, SandboxRecord};
use vc_types::SandboxId;

use super::Runtime;
use crate::error::Result;
use crate::sandbox::{
    self, Device, DeviceConfig, Interface, Route, Sandbox, SandboxConfig, SandboxHandle, Started,
};

impl Runtime {
    /// Makes a sandbox and its containers; none of their processes is started.
    ///
    /// The caller is the keeper of its VM: it ends with this process, and when the handle is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Start`] with the stage that failed; what cannot be done at all is refused before
    /// anything is touched. Nothing is left of a sandbox that did not come up.
    pub async fn create_sandbox(&self, config: SandboxConfig) -> Result<Sandbox> {
        sandbox::create(&self.shared, config).await
    }

    /// What is known of every sandbox, broken ones included. Takes no lock and changes nothing.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Store`] when the state root cannot be read.
    pub fn list_sandbox(&self) -> Result<Vec<Listed>> {
        Ok(self.shared.store.list()?)
    }

    /// The same one after the other, for those who keep only a part of each.
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::list_sandbox`].
    pub fn each_sandbox(&self) -> Result<impl Iterator<Item = Listed> + use<'_>> {
        Ok(self.shared.store.each()?)
    }

    /// Fetches a running sandbox that some process keeps, to act on what runs in it.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Store`] when there is no such sandbox, [`crate::Error::NotRunning`] when it has no
    /// machine, [`crate::Error::Agent`] when its guest cannot be reached.
    pub async fn fetch_sandbox(&self, id: &SandboxId) -> Result<SandboxHandle> {
        sandbox::fetch(&self.shared, id).await
    }

    /// Where a sandbox and its containers stand. Takes no lock and changes nothing.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Store`] when there is no such sandbox or its state cannot be read.
    pub fn status_sandbox(&self, id: &SandboxId) -> Result<SandboxRecord> {
        Ok(self.shared.store.get(id)?.read()?)
    }

    /// Makes a sandbox and starts its containers. Where a start fails, nothing is left.
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::create_sandbox`] and [`Sandbox::start`].
    pub async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox> {
        let sandbox = self.create_sandbox(config).await?;
        match sandbox.start().await {
            Ok(()) => Ok(sandbox),
            Err(error) => {
                if let Err(error) = sandbox.delete().await {
                    tracing::warn!(%error, "not everything of a failed start is removed");
                }
                Err(error)
            }
        }
    }

    /// Starts the containers of a sandbox that wait for their start. A stopped sandbox gets a new
    /// machine first, with all of its containers, and the caller is its keeper.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Types`] when it runs, those of [`Runtime::create_sandbox`] and
    /// [`Runtime::fetch_sandbox`]. A sandbox that was stopped stays stopped then.
    pub async fn start_sandbox(&self, id: &SandboxId) -> Result<Started> {
        sandbox::start(&self.shared, id).await
    }

    /// Ends the machine of a sandbox, whoever keeps it; its state stays. Without `force`, its
    /// containers are stopped politely first, as [`SandboxHandle::stop_container`] does, and
    /// another operation on it is waited for; with `force` that is taken over. One that is stopped
    /// is no error.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Store`] when there is no such sandbox, [`crate::Error::Left`] when a process of it does
    /// not end.
    pub async fn stop_sandbox(&self, id: &SandboxId, force: bool) -> Result<()> {
        sandbox::stop(&self.shared, id, force).await
    }

    /// Removes a sandbox with everything that can be found of it. With `force` it is ended first. Says
    /// whether it was this call that removed it: somebody else may have meanwhile.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Running`] when it runs and `force` is not given, [`crate::Error::Store`] when there is
    /// no such sandbox, [`crate::Error::Left`] when something of it could not be removed.
    pub fn delete_sandbox(&self, id: &SandboxId, force: bool) -> Result<bool> {
        sandbox::delete(&self.shared, id, force)
    }

    /// Adds a device to a running sandbox, see [`SandboxHandle::add_device`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_sandbox`] and [`SandboxHandle::add_device`].
    pub async fn add_device(&self, id: &SandboxId, device: &DeviceConfig) -> Result<Device> {
        self.fetch_sandbox(id).await?.add_device(device).await
    }

    /// Removes a device of a running sandbox, see [`SandboxHandle::remove_device`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_sandbox`] and [`SandboxHandle::remove_device`].
    pub async fn remove_device(&self, id: &SandboxId, device: &str) -> Result<()> {
        self.fetch_sandbox(id).await?.remove_device(device).await
    }

    /// Adds an interface to a running sandbox, see [`SandboxHandle::add_interface`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_sandbox`] and [`SandboxHandle::add_interface`].
    pub async fn add_interface(&self, id: &SandboxId, interface: &Interface) -> Result<Interface> {
        self.fetch_sandbox(id).await?.add_interface(interface).await
    }

    /// Removes an interface of a running sandbox, see [`SandboxHandle::remove_interface`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_sandbox`] and [`SandboxHandle::remove_interface`].
    pub async fn remove_interface(&self, id: &SandboxId, interface: &Interface) -> Result<()> {
        self.fetch_sandbox(id)
            .await?
            .remove_interface(interface)
            .await
    }

    /// The interfaces of a running sandbox, see [`SandboxHandle::list_interfaces`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_sandbox`] and [`SandboxHandle::list_interfaces`].
    pub async fn list_interfaces(&self, id: &SandboxId) -> Result<Vec<Interface>> {
        self.fetch_sandbox(id).await?.list_interfaces().await
    }

    /// Replaces the routes of a running sandbox, see [`SandboxHandle::update_routes`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_sandbox`] and [`SandboxHandle::update_routes`].
    pub async fn update_routes(&self, id: &SandboxId, routes: &[Route]) -> Result<Vec<Route>> {
        self.fetch_sandbox(id).await?.update_routes(routes).await
    }

    /// The routes of a running sandbox, see [`SandboxHandle::list_routes`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_sandbox`] and [`SandboxHandle::list_routes`].
    pub async fn list_routes(&self, id: &SandboxId) -> Result<Vec<Route>> {
        self.fetch_sandbox(id).await?.list_routes().await
    }

    /// The packet filter of a running sandbox, see [`SandboxHandle::get_iptables`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_sandbox`] and [`SandboxHandle::get_iptables`].
    pub async fn get_iptables(&self, id: &SandboxId, version: IpVersion) -> Result<String> {
        self.fetch_sandbox(id).await?.get_iptables(version).await
    }

    /// Sets the packet filter of a running sandbox, see [`SandboxHandle::set_iptables`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_sandbox`] and [`SandboxHandle::set_iptables`].
    pub async fn set_iptables(
        &self,
        id: &SandboxId,
        version: IpVersion,
        rules: &str,
    ) -> Result<String> {
        let sandbox = self.fetch_sandbox(id).await?;
        sandbox.set_iptables(version, rules).await
    }
}
