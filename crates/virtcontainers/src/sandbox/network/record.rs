//! What the state says of a sandbox's network: enough to take away what was added, for whoever reads
//! it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vc_network::LoopbackUndo;
use vc_store::{Document, SandboxDir, SandboxRecord};

use super::nat::NatRecord;
use super::planned::LinkUndo;
use crate::error::{Error, Result, chain};

/// What was, or may have been, added to a namespace, or made with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NetworkRecord {
    pub(super) namespace: PathBuf,
    pub(super) undos: Vec<LinkUndo>,
    /// The rules that lead connections to the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) relay: Option<LoopbackUndo>,
    /// The lease by which the namespace is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nat: Option<NatRecord>,
}

impl NetworkRecord {
    /// That of a lease whose namespace is not there yet.
    pub(super) fn of_lease(nat: &NatRecord) -> Self {
        Self {
            namespace: PathBuf::new(),
            undos: Vec::new(),
            relay: None,
            nat: Some(nat.clone()),
        }
    }

    /// Writes it into the state of a sandbox.
    pub(super) fn write(&self, directory: &SandboxDir) -> Result<()> {
        let value = Document::of(self).map_err(|source| Error::System {
            attempt: "write down what is added to a network".into(),
            source: source.into(),
        })?;
        Ok(directory.update(|record| record.network = Some(value))?)
    }

    /// Takes away what was added, and says what stays.
    fn undo(&self) -> Vec<String> {
        let mut left = undo_each(&self.undos, &self.namespace, |undo| {
            undo.undo_at(&self.namespace)
        });
        let relay = self.relay.as_ref();
        if let Some(Err(error)) = relay.map(|relay| relay.undo_at(&self.namespace)) {
            left.push(format!(
                "rules for connections to the guest: {}",
                chain(&error)
            ));
        }
        if let Some(Err(error)) = self.nat.as_ref().map(NatRecord::release) {
            left.push(format!("its address: {}", chain(&error)));
        }
        left
    }
}

/// Takes away what a sandbox has added to the network of the host, and says what stays. To be called
/// when its machine has ended.
pub(crate) fn undo(record: &SandboxRecord) -> Vec<String> {
    let Some(network) = &record.network else {
        return Vec::new();
    };
    match network.read::<NetworkRecord>() {
        Ok(network) => network.undo(),
        Err(error) => vec![format!(
            "its network, of which the state cannot be read: {error}"
        )],
    }
}

/// Takes away what each of `undos` has added to the namespace at `path`, and says what stays.
pub(super) fn undo_each(
    undos: &[LinkUndo],
    path: &Path,
    undo: impl Fn(&LinkUndo) -> vc_network::Result<()>,
) -> Vec<String> {
    let stays = |one: &LinkUndo| {
        let error = undo(one).err()?;
        Some(format!(
            "network namespace {}: {}",
            path.display(),
            chain(&error)
        ))
    };
    undos.iter().filter_map(stays).collect()
}
