use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use vc_hypervisor::SavedVm;
use vc_store::UnixMillis;

use super::error::{Attempt as _, TemplateResult};
use super::id::{TemplateId, hex};
use super::memory;

/// The guest's memory.
pub(super) const MEMORY: &str = "memory";

/// The state of the machine's devices.
pub(super) const STATE: &str = "state";

/// What the two files have to be.
pub(super) const DESCRIPTION: &str = "template.json";

/// Bytes that a state may have. It has some hundred thousand.
const STATE_BYTES_MAX: u64 = 64 << 20;

/// Bytes that a description may have.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 10;

/// What is known of a template's files. It is written last: without it there is no template.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    pub(super) id: String,
    pub(super) made: UnixMillis,
    /// The size of the guest's memory.
    pub(super) memory_bytes: u64,
    /// What of it is in the file.
    pub(super) data_bytes: u64,
    pub(super) state_digest: String,
    /// What the driver wants to know of it.
    pub(super) driver_notes: String,
}

/// A template whose files are open and are what they have to be.
#[derive(Debug)]
pub(super) struct Stored {
    id: TemplateId,
    memory: File,
    memory_bytes: u64,
    state: File,
    notes: String,
}

/// What there is of a template.
#[derive(Debug)]
pub(super) enum Found {
    Whole(Stored),
    /// Its files are not those that were made.
    Broken,
}

impl Stored {
    /// Opens the files in `directory`.
    pub(super) fn open(directory: &Path, id: &TemplateId) -> TemplateResult<Found> {
        let open = |name: &str| {
            let path = directory.join(name);
            File::open(&path).attempt(|| format!("open {}", path.display()))
        };
        let mut text = Vec::new();
        let description = open(DESCRIPTION)?;
        let read = description
            .take(DESCRIPTION_BYTES_MAX)
            .read_to_end(&mut text);
        read.attempt(|| format!("read the description of template {id}"))?;
        let Ok(description) = serde_json::from_slice::<Description>(&text) else {
            return Ok(Found::Broken);
        };
        let (memory, mut state) = (open(MEMORY)?, open(STATE)?);
        let look = || format!("look at the memory of template {id}");
        let size = memory.metadata().attempt(look)?.len();
        // Not by the blocks that it takes: a file system that compresses has fewer.
        let whole = size == description.memory_bytes
            && memory::data_bytes(&memory).attempt(look)? >= description.data_bytes
            && description.id == id.as_str()
            && digest(&mut state).attempt(|| format!("read the state of template {id}"))?
                == description.state_digest;
        if !whole {
            return Ok(Found::Broken);
        }
        Ok(Found::Whole(Self {
            id: id.clone(),
            memory,
            memory_bytes: description.memory_bytes,
            state,
            notes: description.driver_notes,
        }))
    }

    pub(super) fn id(&self) -> &TemplateId {
        &self.id
    }

    /// What one VM goes on with. Its memory is being copied while its VMM starts.
    pub(super) fn copy(self) -> TemplateResult<SavedVm> {
        let attempt = || format!("copy the memory of template {}", self.id);
        let own = memory::anonymous(self.memory_bytes).attempt(attempt)?;
        let filling = own.try_clone().attempt(attempt)?;
        let (copied, filled) = oneshot::channel();
        let memory = self.memory;
        tokio::task::spawn_blocking(move || {
            // Nobody asks any more where the VM was given up.
            let _ = copied.send(memory::copy(&memory, &filling).map(drop));
        });
        Ok(SavedVm {
            memory: own.into(),
            filled,
            state: self.state.into(),
            notes: self.notes,
        })
    }
}

/// The digest of a file from its beginning, which it is at afterwards again.
pub(super) fn digest(file: &mut File) -> std::io::Result<String> {
    let mut data = Vec::new();
    file.rewind()?;
    file.by_ref().take(STATE_BYTES_MAX).read_to_end(&mut data)?;
    file.rewind()?;
    Ok(hex(&Sha256::digest(&data)))
}
