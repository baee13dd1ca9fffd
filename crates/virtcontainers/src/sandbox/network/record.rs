//! What the state says of a sandbox's network: enough to take away what was added, for whoever reads
//! it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vc_network::Undo;
use vc_store::SandboxRecord;

/// What was, or may have been, added to a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NetworkRecord {
    pub(super) namespace: PathBuf,
    pub(super) undos: Vec<Undo>,
}

impl NetworkRecord {
    /// As the state has it.
    pub(super) fn to_value(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    /// Takes away what was added, and says what stays.
    fn undo(&self) -> Vec<String> {
        let failed = self.undos.iter().filter_map(|undo| {
            let error = undo.undo_at(&self.namespace).err()?;
            Some(format!(
                "network namespace {}: {}",
                self.namespace.display(),
                chain(&error)
            ))
        });
        failed.collect()
    }
}

/// Takes away what a sandbox has added to the network of the host, and says what stays. To be called
/// when its machine has ended.
pub(crate) fn undo(record: &SandboxRecord) -> Vec<String> {
    let Some(value) = &record.network else {
        return Vec::new();
    };
    match serde_json::from_value::<NetworkRecord>(value.clone()) {
        Ok(network) => network.undo(),
        Err(error) => vec![format!(
            "its network, of which the state cannot be read: {error}"
        )],
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
