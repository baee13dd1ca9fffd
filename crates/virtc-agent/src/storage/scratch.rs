//! The scratch disk of a template, mounted before anybody asks for it: its clones have it as it is.

use agent_protocol::agent::Storage;
use agent_protocol::guest::{SCRATCH_DIR, SCRATCH_FSTYPE, SCRATCH_OPTIONS, SCRATCH_SERIAL};

use super::block;
use crate::sandbox::Sandbox;

impl Sandbox {
    /// Mounts the scratch disk that the machine has. What asks for it later finds it mounted; where it
    /// cannot be now, it is tried again then.
    pub(crate) async fn mount_own_scratch(&self) {
        if !block::is_there(SCRATCH_SERIAL) {
            return;
        }
        if let Err(error) = self.add_storages(vec![storage()]).await {
            tracing::warn!("{}", error.chain());
        }
    }
}

/// As the host asks for it.
pub(super) fn storage() -> Storage {
    Storage {
        driver: "blk".into(),
        source: format!("serial={SCRATCH_SERIAL}"),
        fstype: SCRATCH_FSTYPE.into(),
        options: SCRATCH_OPTIONS.map(str::to_owned).into(),
        mount_point: SCRATCH_DIR.into(),
        ..Storage::default()
    }
}
