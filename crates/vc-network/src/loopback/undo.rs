use std::path::Path;

use serde::{Deserialize, Serialize};

use super::TABLE;
use crate::error::{Error, Result};
use crate::namespace::{Namespace, NamespaceId};
use crate::nft;

/// What a relay adds to a namespace and is to be taken away again: its rules. The listeners end with
/// their process.
///
/// It is plain data for a state file. Undoing does nothing where there is nothing left to undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopbackUndo {
    pub(super) namespace: NamespaceId,
}

impl LoopbackUndo {
    /// Takes the rules away. Another namespace than the one that was changed is left alone.
    ///
    /// # Errors
    ///
    /// [`Error::NoProgram`], [`Error::Program`] and [`Error::Io`] when they stay.
    pub fn undo(&self, namespace: &Namespace) -> Result<()> {
        if namespace.id() != self.namespace {
            return Ok(());
        }
        nft::delete_table(namespace, TABLE)
    }

    /// The same, by a path at which the namespace may not be any more.
    ///
    /// # Errors
    ///
    /// Those of [`LoopbackUndo::undo`], and [`Error::Io`] when what is at `path` cannot be looked at.
    pub fn undo_at(&self, path: impl AsRef<Path>) -> Result<()> {
        match Namespace::open_any(path.as_ref().to_owned()) {
            Ok(namespace) => self.undo(&namespace),
            Err(Error::NamespaceGone { .. } | Error::NotANetworkNamespace { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
