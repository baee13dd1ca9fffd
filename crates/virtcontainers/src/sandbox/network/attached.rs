//! A network that is attached: what the machine has of it, and what takes it away again.

use std::collections::BTreeMap;

use vc_agent_client::network::GuestNetwork;
use vc_hypervisor::qemu::nic_pci_path;
use vc_hypervisor::{Nic, NicBackend};
use vc_network::{Namespace, Scan, Undo, Watch};
use vc_store::SandboxDir;

use super::guest;
use super::plan::{NetworkPlan, QUEUES};
use super::record::{NetworkRecord, chain};
use crate::error::{Error, Result};
use crate::fault;

/// Taps beside the links of a namespace. Dropping it takes them away; the machine is to have ended.
pub(crate) struct AttachedNetwork {
    directory: SandboxDir,
    namespace: Namespace,
    /// Tells of later changes.
    _watch: Watch,
    scan: Scan,
    undos: Vec<Undo>,
    /// Where the guest finds the device of a link, by the link's index.
    devices: BTreeMap<u32, String>,
}

impl NetworkPlan {
    /// Attaches every endpoint, after the state of the sandbox says how that is undone. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Network`], [`Error::Store`]; what was added is taken away then.
    pub(crate) fn attach(self, directory: &SandboxDir) -> Result<(AttachedNetwork, Vec<Nic>)> {
        let Self {
            path,
            namespace,
            watch,
            scan,
            attachments,
        } = self;
        let mut attached = AttachedNetwork {
            directory: directory.clone(),
            namespace,
            _watch: watch,
            scan,
            undos: Vec::new(),
            devices: BTreeMap::new(),
        };
        if attachments.is_empty() {
            return Ok((attached, Vec::new()));
        }
        let planned = attachments.iter().map(|(_, one)| one.undo().clone());
        let record = NetworkRecord {
            namespace: path,
            undos: planned.collect(),
        };
        let value = record.to_value().map_err(|source| Error::System {
            attempt: "write down what is added to a network".into(),
            source: source.into(),
        })?;
        directory.update(|record| record.network = Some(value))?;
        fault::point("network.noted")?;
        let mut nics = Vec::new();
        for (place, (endpoint, attachment)) in attachments.into_iter().enumerate() {
            let done = attachment.attach(&attached.namespace)?;
            attached.undos.push(done.undo);
            fault::point("network.attached")?;
            let index = endpoint.link().index;
            attached.devices.insert(index, nic_pci_path(place));
            nics.push(Nic {
                id: format!("net{place}"),
                mac: endpoint.mac().octets(),
                queues: QUEUES,
                backend: NicBackend::Tap {
                    fds: done.tap.into_queues(),
                    vhost_fds: Vec::new(),
                },
            });
        }
        Ok((attached, nics))
    }
}

impl AttachedNetwork {
    /// What the guest is to have, where there is more than its loopback.
    pub(crate) fn for_the_guest(&self) -> Option<GuestNetwork> {
        let network = guest::network(&self.scan, &self.devices);
        (!self.devices.is_empty()).then_some(network)
    }

    /// Takes away what was added, and says so in the state. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Left`] when something stays; the state goes on saying so.
    pub(crate) fn undo(mut self) -> Result<()> {
        if self.undos.is_empty() {
            return Ok(());
        }
        let left = self.take_away();
        if !left.is_empty() {
            return Err(Error::Left {
                sandbox: self.directory.id().clone(),
                left: left.join(", "),
            });
        }
        fault::point("network.undone")?;
        match self.directory.update(|record| record.network = None) {
            // Whoever removed the sandbox has undone it too.
            Err(error) if error.is_not_found() => Ok(()),
            updated => Ok(updated?),
        }
    }

    fn take_away(&mut self) -> Vec<String> {
        let undos = std::mem::take(&mut self.undos);
        let failed = undos.iter().filter_map(|undo| {
            let error = undo.undo(&self.namespace).err()?;
            Some(format!(
                "network namespace {}: {}",
                self.namespace.path().display(),
                chain(&error)
            ))
        });
        failed.collect()
    }
}

impl Drop for AttachedNetwork {
    fn drop(&mut self) {
        for left in self.take_away() {
            tracing::warn!(left, "stays");
        }
    }
}
