//! Devices that come and go, one behind each root port.
//!
//! What QEMU calls the parts of a device is made of its port's number alone, so that whoever knows
//! the port can take them out: another process too, and after an interruption at any step.

mod commands;

use std::sync::Arc;
use std::time::Duration;

use qapi::Command;
use qapi::qmp::{self, QmpCommand};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::warn;
use vc_types::ByteSize;

use super::CAPABILITIES;
use super::qmp::Qmp;
use super::vm::Running;
use crate::hotplug::Place;
use crate::{Error, HotDevice, HotDeviceKind, NicBackend, PlugPhase, Plugged, Result};

/// Between two requests to let go of a device: a guest that is still booting forgets the first.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How long QEMU may hold the disk of a device that is gone.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// Between two attempts to remove the disk of a device that is gone.
const RELEASE_RETRY: Duration = Duration::from_millis(10);

impl Running {
    pub(super) fn reserve(&self, device: &HotDevice) -> Result<Plugged> {
        device.check(&CAPABILITIES)?;
        self.hot_plug().reserve(device)
    }

    /// Goes on in the background when this is dropped, so that nothing stays half done.
    pub(super) async fn plug(self: Arc<Self>, device: HotDevice) -> Result<Plugged> {
        device.check(&CAPABILITIES)?;
        let place = self.hot_plug().begin(&device)?;
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let _one_at_a_time = self.plugging.lock().await;
            let id = device.id().to_owned();
            let plugged = self.plug_at(place, device).await;
            let was_plugged = plugged.is_ok();
            let is_heard = tell.send(plugged).is_ok();
            if was_plugged && !is_heard {
                self.roll_back(place, &id).await;
            }
        });
        told.await.unwrap_or_else(|_| Err(runtime_is_gone()))
    }

    async fn plug_at(&self, place: Place, device: HotDevice) -> Result<Plugged> {
        let id = device.id().to_owned();
        let added = async {
            let mut session = Session::open(self, place).await?;
            session.add(device).await
        };
        match added.await {
            Ok(()) => self.hot_plug().set_phase(&id, PlugPhase::Present),
            Err(error) => {
                self.roll_back(place, &id).await;
                Err(error)
            }
        }
    }

    /// Takes out what there is of a device that was not plugged in. On a connection of its own:
    /// the other may still have an answer to come.
    async fn roll_back(&self, place: Place, id: &str) {
        if let Err(error) = self.take_out(place, id).await {
            warn!(id, %error, "it was not plugged in, and a part of it stays");
        }
    }

    /// Goes on in the background when this is dropped.
    pub(super) async fn unplug(self: Arc<Self>, id: &str) -> Result<()> {
        let place = self.hot_plug().place(id)?;
        let (tell, told) = oneshot::channel();
        let id = id.to_owned();
        tokio::spawn(async move {
            let _one_at_a_time = self.plugging.lock().await;
            // Whoever asked may have given it up.
            let _ = tell.send(self.take_out(place, &id).await);
        });
        told.await.unwrap_or_else(|_| Err(runtime_is_gone()))
    }

    async fn take_out(&self, place: Place, id: &str) -> Result<()> {
        if place.kind == HotDeviceKind::Memory {
            let mut session = Session::open(self, place).await?;
            if session.has_memory().await? {
                // Whoever was interrupted was done with it.
                self.hot_plug().set_phase(id, PlugPhase::Present)?;
                return Err(Error::Stays { id: id.to_owned() });
            }
        }
        self.hot_plug().set_phase(id, PlugPhase::Leaving)?;
        let mut session = Session::open(self, place).await?;
        session.remove(id).await?;
        self.hot_plug().free(id);
        Ok(())
    }
}

/// The task of an operation ended without an answer.
fn runtime_is_gone() -> Error {
    Error::Connection {
        command: "device_add",
        source: std::io::Error::other("the runtime of this process ends"),
    }
}

/// A connection to QEMU for one device.
struct Session {
    qmp: Qmp,
    place: Place,
    command_limit: Duration,
    unplug_limit: Duration,
}

impl Session {
    async fn open(running: &Running, place: Place) -> Result<Self> {
        let limits = running.limits();
        Ok(Self {
            qmp: running.connect().await?,
            place,
            command_limit: limits.command,
            unplug_limit: limits.unplug,
        })
    }

    async fn execute<C: QmpCommand>(&mut self, command: C) -> Result<C::Ok> {
        self.qmp.execute(command, self.command_limit).await
    }

    /// Every step of this is undone by [`Session::remove`], however far it came.
    async fn add(&mut self, device: HotDevice) -> Result<()> {
        let port = self.place.port;
        match device {
            HotDevice::Disk(disk) => {
                let file = crate::hotplug::DiskFile::of(&disk)?;
                let command = commands::add_fd(port);
                self.pass(command, &disk.image).await?;
                self.execute(commands::blockdev_add(port, &disk, file))
                    .await?;
                self.execute(commands::disk(port, &disk.serial)).await?;
            }
            HotDevice::Memory(size) => self.add_memory(size).await?,
            HotDevice::Nic(nic) => {
                let NicBackend::Tap { fds, vhost_fds } = nic.backend else {
                    return Ok(());
                };
                for (index, fd) in fds.iter().chain(&vhost_fds).enumerate() {
                    self.pass(commands::getfd(port, index), fd).await?;
                }
                let netdev = commands::netdev_add(port, fds.len(), vhost_fds.len());
                self.execute(netdev).await?;
                self.execute(commands::nic(port, nic.mac, nic.queues))
                    .await?;
            }
        }
        Ok(())
    }

    /// QEMU takes no memory out again, so what whoever was interrupted has made of it stays, and is
    /// gone on from.
    async fn add_memory(&mut self, size: ByteSize) -> Result<()> {
        let port = self.place.port;
        if self.has_memory().await? {
            return Ok(());
        }
        self.attempt(commands::object_del(port)).await?;
        self.execute(commands::object_add(port, size)).await?;
        if let Err(error) = self.execute(commands::memory(port)).await {
            self.attempt(commands::object_del(port)).await?;
            return Err(error);
        }
        Ok(())
    }

    async fn has_memory(&mut self) -> Result<bool> {
        let devices = self.execute(qmp::query_memory_devices {}).await?;
        Ok(super::resize::device(&devices, self.place.port).is_some())
    }

    async fn pass<C: QmpCommand>(
        &mut self,
        command: C,
        fd: &impl std::os::fd::AsFd,
    ) -> Result<C::Ok> {
        let fds = [fd.as_fd()];
        let answer = self.qmp.try_execute(command, &fds, self.command_limit);
        answer.await?.map_err(|refusal| refusal.of(C::NAME))
    }

    /// Takes out whatever there is of the device, from the guest on.
    async fn remove(&mut self, id: &str) -> Result<()> {
        let gone = self.remove_device(id).await;
        match (self.place.kind, &gone) {
            // A network device that the guest keeps has no cable any more: what was behind it can go.
            (HotDeviceKind::Nic, Ok(()) | Err(Error::GuestKeeps { .. })) => {
                self.remove_netdev().await?;
            }
            (HotDeviceKind::Disk, Ok(())) => {
                self.remove_node().await?;
                self.attempt(commands::remove_fd(self.place.port)).await?;
            }
            (HotDeviceKind::Memory, Ok(())) => {
                self.attempt(commands::object_del(self.place.port)).await?;
            }
            (_, Err(_)) => {}
        }
        gone
    }

    async fn remove_netdev(&mut self) -> Result<()> {
        let port = self.place.port;
        let netdev = commands::netdev_del(port);
        let answer = self.qmp.try_execute(netdev, &[], self.command_limit);
        match answer.await? {
            Err(refusal) if !refusal.is_absent() => {
                return Err(refusal.of(qmp::netdev_del::NAME));
            }
            _ => {}
        }
        for index in 0..self.place.descriptors {
            // As a rule it is not there: the back end took it.
            self.attempt(commands::closefd(port, index)).await?;
        }
        Ok(())
    }

    /// A device that is gone holds its disk for a moment longer, and nothing tells its end.
    async fn remove_node(&mut self) -> Result<()> {
        let end = Instant::now() + RELEASE_LIMIT;
        loop {
            let node = commands::blockdev_del(self.place.port);
            let answer = self.qmp.try_execute(node, &[], self.command_limit);
            let Err(refusal) = answer.await? else {
                return Ok(());
            };
            // QEMU has no word of its own for a node that is not there.
            if !self.has_node().await? {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(refusal.of(qmp::blockdev_del::NAME));
            }
            sleep(RELEASE_RETRY).await;
        }
    }

    /// What is refused because there is nothing to do it to.
    async fn attempt<C: QmpCommand>(&mut self, command: C) -> Result<()> {
        let answer = self.qmp.try_execute(command, &[], self.command_limit);
        answer.await.map(drop)
    }

    async fn has_node(&mut self) -> Result<bool> {
        let name = commands::name(self.place.port);
        let nodes = self.execute(qmp::query_named_block_nodes { flat: Some(true) });
        let nodes = nodes.await?;
        Ok(nodes
            .iter()
            .any(|node| node.node_name.as_ref() == Some(&name)))
    }

    /// Asks the guest until the device is gone.
    async fn remove_device(&mut self, id: &str) -> Result<()> {
        let device = commands::name(self.place.port);
        let end = Instant::now() + self.unplug_limit;
        loop {
            let asked = commands::device_del(self.place.port);
            let answer = self.qmp.try_execute(asked, &[], self.command_limit);
            let refusal = match answer.await? {
                Err(refusal) if refusal.is_absent() => return Ok(()),
                answer => answer.err(),
            };
            let rest = end.saturating_duration_since(Instant::now());
            if self.qmp.deleted(&device, rest.min(ASK_AGAIN)).await? {
                return Ok(());
            }
            if Instant::now() < end {
                continue;
            }
            if let Some(refusal) = refusal {
                // Such as that the guest was asked already.
                let error = refusal.of(qmp::device_del::NAME);
                warn!(id, %error, "QEMU did not ask the guest again");
            }
            return Err(Error::GuestKeeps {
                id: id.to_owned(),
                limit: self.unplug_limit,
            });
        }
    }
}

#[cfg(test)]
mod tests;
