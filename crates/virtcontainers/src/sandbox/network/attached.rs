//! A network that is attached: what the machine has of it, and what takes it away again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use vc_agent_client::network::GuestNetwork;
use vc_hypervisor::qemu::{NicPlace, nic_places};
use vc_hypervisor::{Nic, NicBackend};
use vc_network::{Endpoint, Link, LoopbackListeners, LoopbackUndo, Namespace, Scan, Undo, Watch};
use vc_store::SandboxDir;
use vc_types::SandboxUsers;

use super::super::handle::SandboxHandle;
use super::endpoint::EndpointRules;
use super::guest::{self, GuestDevice};
use super::nat::NatLease;
use super::plan::NetworkPlan;
use super::planned::{LinkUndo, Planned};
use super::record::{NetworkRecord, undo_each};
use crate::error::{Error, Result, chain};
use crate::fault;
use crate::runtime::blocking;

/// Taps beside the links of a namespace. Dropping it takes them away; the machine is to have ended.
pub(crate) struct AttachedNetwork {
    directory: SandboxDir,
    path: PathBuf,
    namespace: Arc<Namespace>,
    watch: Option<Watch>,
    scan: Scan,
    rules: EndpointRules,
    /// By the link's index.
    links: BTreeMap<u32, AttachedLink>,
    /// Of links that have vanished, whose devices the guest still has.
    left: Vec<LinkUndo>,
    /// Links of the start that have not come to the machine yet, by their index: one that cannot come
    /// fails it.
    awaited: BTreeSet<u32>,
    /// Whether the guest has what the scan says. Where it could not be told, it is told again.
    told: bool,
    /// The rules that lead connections to the guest.
    relay: Option<LoopbackUndo>,
    /// Where these connections come.
    listeners: Option<LoopbackListeners>,
    /// By which the namespace is there, where it was made for the sandbox.
    lease: Option<NatLease>,
}

/// What a thread has added to a namespace. Where nobody waits for it any more, everything else may be
/// undone by then, and dropping this takes it away too.
struct Unreceived {
    namespace: Arc<Namespace>,
    undo: Option<Undo>,
}

impl Unreceived {
    fn new(namespace: Arc<Namespace>, undo: Undo) -> Self {
        let undo = Some(undo);
        Self { namespace, undo }
    }

    /// Leaves it to whoever waited.
    fn received(mut self) {
        self.undo = None;
    }
}

impl Drop for Unreceived {
    fn drop(&mut self) {
        let undone = self.undo.take().map(|undo| undo.undo(&self.namespace));
        if let Some(Err(error)) = undone {
            tracing::warn!(error = chain(&error), "what was added to a network stays");
        }
    }
}

/// A link of the namespace that reaches the machine.
struct AttachedLink {
    undo: LinkUndo,
    /// Where the guest finds its device.
    pci_path: String,
    /// The device's name, where it can be taken out of the running machine.
    plugged: Option<String>,
}

impl AttachedLink {
    /// Whether the machine has the card itself.
    fn is_passed(&self) -> bool {
        matches!(self.undo, LinkUndo::Passed(_))
    }
}

impl NetworkPlan {
    /// Attaches every endpoint, after the state of the sandbox says how that is undone. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Network`], [`Error::Store`]; what was added is taken away then.
    pub(crate) fn attach(self, directory: &SandboxDir) -> Result<(AttachedNetwork, Vec<Nic>)> {
        let planned = || self.endpoints.iter().map(|(_, planned)| planned);
        let undos = planned().map(Planned::undo).collect();
        let places = nic_places(planned().map(Planned::is_movable), self.root_ports);
        let mut attached = AttachedNetwork {
            directory: directory.clone(),
            path: self.path,
            namespace: Arc::new(self.namespace),
            watch: Some(self.watch),
            scan: self.scan,
            rules: self.rules,
            links: BTreeMap::new(),
            left: Vec::new(),
            awaited: self.awaited,
            told: true,
            relay: self.relay.as_ref().map(|relay| relay.undo().clone()),
            listeners: None,
            lease: self.lease,
        };
        if self.endpoints.is_empty() && self.relay.is_none() {
            return Ok((attached, Vec::new()));
        }
        attached.note(undos)?;
        fault::point("network.noted")?;
        let mut nics = Vec::new();
        for (number, (endpoint, planned)) in self.endpoints.into_iter().enumerate() {
            let id = format!("net{number}");
            let place = places.get(number).copied();
            nics.push(attached.attach_one(id, place, &endpoint, planned)?);
        }
        if let Some(relay) = self.relay {
            attached.listeners = Some(relay.open(&attached.namespace)?);
            fault::point("network.relayed")?;
        }
        Ok((attached, nics))
    }
}

impl AttachedNetwork {
    fn attach_one(
        &mut self,
        id: String,
        place: Option<NicPlace>,
        endpoint: &Endpoint,
        planned: Planned,
    ) -> Result<Nic> {
        let place = place.unwrap_or(NicPlace::Fixed(0));
        let mut link = AttachedLink {
            undo: planned.undo(),
            pci_path: place.pci_path(),
            plugged: matches!(place, NicPlace::Port(_)).then(|| id.clone()),
        };
        match planned {
            Planned::Joined(attachment) => {
                let done = attachment.attach(&self.namespace)?;
                link.undo = LinkUndo::Joined(done.undo);
                self.links.insert(endpoint.link().index, link);
                fault::point("network.attached")?;
                self.rules.nic(id, endpoint, done.tap)
            }
            Planned::Passed(passthrough) => {
                // Also a card that is not bound is given back: its link has gone meanwhile.
                self.links.insert(endpoint.link().index, link);
                passthrough.bind(SandboxUsers::of(self.directory.id()).vmm())?;
                fault::point("network.attached")?;
                Ok(Nic {
                    id,
                    mac: endpoint.mac().octets(),
                    queues: 1,
                    backend: NicBackend::Passed {
                        host: passthrough.address(),
                    },
                })
            }
        }
    }

    /// What tells of changes, once.
    pub(super) fn take_watch(&mut self) -> Option<Watch> {
        self.watch.take()
    }

    /// Where connections come that are the guest's, once.
    pub(super) fn take_listeners(&mut self) -> Option<LoopbackListeners> {
        self.listeners.take()
    }

    pub(super) fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// What the guest is to have, where there is more than its loopback.
    pub(crate) fn for_the_guest(&self) -> Option<GuestNetwork> {
        (!self.links.is_empty()).then(|| self.network())
    }

    fn network(&self) -> GuestNetwork {
        let devices = self.links.iter();
        let devices = devices.map(|(index, link)| {
            let device = GuestDevice {
                pci_path: link.pci_path.clone(),
                own_mac: link.is_passed(),
            };
            (*index, device)
        });
        guest::network(&self.scan, &devices.collect())
    }

    /// Looks at the namespace again, and brings the guest what is other than before. What cannot be
    /// attached is left out with a warning, and looked at again with the next change.
    ///
    /// # Errors
    ///
    /// [`Error::Network`] when the namespace cannot be looked at, [`Error::Agent`].
    pub(super) async fn update(&mut self, sandbox: &SandboxHandle) -> Result<()> {
        let namespace = Arc::clone(&self.namespace);
        let mut newer = blocking(move || Ok(Scan::of(&namespace)?)).await?;
        newer.keep_links_of(&self.scan);
        // The machine has their cards: the namespace has no such links meanwhile.
        let passed = self.links.iter().filter(|(_, link)| link.is_passed());
        newer.keep_taken(&self.scan, &passed.map(|(index, _)| *index).collect());
        let difference = self.scan.difference(&newer);
        if difference.is_empty() && self.told {
            return Ok(());
        }
        self.told = false;
        for link in &difference.vanished_links {
            // A card is given back at the end, and needs what is noted of it until then.
            let passed = self.links.get(&link.index);
            if passed.is_some_and(AttachedLink::is_passed) {
                continue;
            }
            self.detach(sandbox, link).await;
        }
        for link in difference.added_links {
            let (name, index) = (link.name.clone(), link.index);
            if let Err(error) = self.plug(sandbox, link).await {
                if self.awaited.contains(&index) {
                    return Err(error);
                }
                tracing::warn!(link = %name, error = chain(&error), "the guest does not get it");
                newer.links.retain(|link| link.name != name);
            }
        }
        self.scan = newer;
        let network = self.network();
        sandbox.0.guest.agent.configure_network(&network).await?;
        self.told = true;
        self.awaited.clear();
        Ok(())
    }

    /// Attaches a link that has appeared, and plugs its device in.
    async fn plug(&mut self, sandbox: &SandboxHandle, link: Link) -> Result<()> {
        let index = link.index;
        let endpoint = Endpoint::new(link)?;
        let (namespace, planned) = (Arc::clone(&self.namespace), endpoint.clone());
        let rules = self.rules.clone();
        let attachment = blocking(move || rules.plan_to_plug(&namespace, &planned)).await?;
        // Whoever gives this up half-way leaves it to the end.
        let planned = LinkUndo::Joined(attachment.undo().clone());
        if !self.left.contains(&planned) {
            self.left.push(planned.clone());
        }
        self.note(self.undos())?;
        let namespace = Arc::clone(&self.namespace);
        let attached = blocking(move || {
            let attached = attachment.attach(&namespace)?;
            let unreceived = Unreceived::new(namespace, attached.undo.clone());
            Ok((attached, unreceived))
        });
        let (attached, unreceived) = attached.await?;
        unreceived.received();
        let undo = LinkUndo::Joined(attached.undo);
        let plugged = sandbox
            .plug_nic(|id| self.rules.nic(id, &endpoint, attached.tap))
            .await;
        match plugged {
            Ok(device) => {
                self.left.retain(|left| *left != planned);
                let link = AttachedLink {
                    undo,
                    pci_path: device.pci_path,
                    plugged: Some(device.id),
                };
                self.links.insert(index, link);
                Ok(())
            }
            Err(error) => {
                self.take_away(undo).await;
                Err(error)
            }
        }
    }

    /// Takes the device of a link out that has vanished. One that is behind no root port stays in the
    /// guest, without a name and an address.
    async fn detach(&mut self, sandbox: &SandboxHandle, link: &Link) {
        let Some(attached) = self.links.remove(&link.index) else {
            return;
        };
        // Whoever gives this up half-way leaves it to the end.
        self.left.push(attached.undo.clone());
        let is_in_use = match &attached.plugged {
            Some(id) => sandbox.unplug(id).await.is_err_and(|error| {
                tracing::warn!(link = %link.name, error = chain(&error), "its device stays");
                !error.is_kept_by_guest()
            }),
            None => true,
        };
        // Until the end: a VMM whose tap is gone asks it for ever.
        if !is_in_use {
            self.take_away(attached.undo).await;
        }
    }

    /// Takes away what was added for one link. Where that fails, it is tried again at the end.
    async fn take_away(&mut self, undo: LinkUndo) {
        let (namespace, one) = (Arc::clone(&self.namespace), undo.clone());
        match blocking(move || Ok(one.undo(&namespace)?)).await {
            Ok(()) => self.left.retain(|left| *left != undo),
            Err(error) => {
                tracing::debug!(error = chain(&error), "it is taken away later");
                if !self.left.contains(&undo) {
                    self.left.push(undo);
                }
            }
        }
        if let Err(error) = self.note(self.undos()) {
            tracing::warn!(
                error = chain(&error),
                "the state says more of the network than is"
            );
        }
    }

    fn undos(&self) -> Vec<LinkUndo> {
        let attached = self.links.values().map(|link| &link.undo);
        attached.chain(&self.left).cloned().collect()
    }

    /// Notes in the state what is, or may be, in the namespace.
    fn note(&self, undos: Vec<LinkUndo>) -> Result<()> {
        let record = NetworkRecord {
            namespace: self.path.clone(),
            undos,
            relay: self.relay.clone(),
            nat: self.lease.as_ref().map(|lease| lease.record().clone()),
        };
        record.write(&self.directory)
    }

    /// Takes away what was added, and says so in the state. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Left`] when something stays; the state goes on saying so.
    pub(crate) fn undo(mut self) -> Result<()> {
        if self.undos().is_empty() && self.relay.is_none() && self.lease.is_none() {
            return Ok(());
        }
        let left = self.undo_all();
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

    fn undo_all(&mut self) -> Vec<String> {
        let undos = self.undos();
        self.links.clear();
        self.left.clear();
        let mut left = undo_each(&undos, &self.path, |undo| undo.undo(&self.namespace));
        let relay = self.relay.take();
        if let Some(Err(error)) = relay.map(|relay| relay.undo(&self.namespace)) {
            left.push(format!(
                "rules for connections to the guest: {}",
                chain(&error)
            ));
        }
        if let Some(Err(error)) = self.lease.take().map(|mut lease| lease.release()) {
            left.push(format!("its address: {}", chain(&error)));
        }
        left
    }
}

impl Drop for AttachedNetwork {
    fn drop(&mut self) {
        for left in self.undo_all() {
            tracing::warn!(left, "stays");
        }
    }
}
