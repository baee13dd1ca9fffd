use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use vc_hypervisor::SavedVm;
use vc_storage::ScratchDisk;
use vc_store::UnixMillis;

use super::error::{Attempt as _, TemplateResult};
use super::id::{TemplateId, hex};
use super::{blocking, memory, passed};

/// The guest's memory.
pub(super) const MEMORY: &str = "memory";

/// The state of the machine's devices.
pub(super) const STATE: &str = "state";

/// The image of the scratch disk, where there is one.
pub(super) const SCRATCH: &str = "scratch";

/// What these files have to be.
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
    pub(super) memory: Size,
    pub(super) state_digest: String,
    pub(super) scratch: Option<Size>,
    /// What the driver wants to know of it.
    pub(super) driver_notes: String,
}

/// How large a sparse file is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Size {
    pub(super) bytes: u64,
    /// What of it is no hole.
    pub(super) data_bytes: u64,
}

impl Size {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Self {
            bytes: file.metadata()?.len(),
            data_bytes: memory::data_bytes(file)?,
        })
    }

    /// Whether it is what is in a file. Not by the blocks that it takes: a file system that compresses
    /// has fewer.
    fn is_that_of(self, file: &File) -> io::Result<bool> {
        let found = Self::of(file)?;
        Ok(found.bytes == self.bytes && found.data_bytes >= self.data_bytes)
    }
}

/// A template whose files are open and are what they have to be.
#[derive(Debug)]
pub(super) struct Stored {
    id: TemplateId,
    memory: File,
    memory_bytes: u64,
    state: File,
    scratch: Option<File>,
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
        let scratch = description.scratch.map(|_| open(SCRATCH)).transpose();
        let opened = (open(MEMORY), open(STATE), scratch);
        let (memory, mut state, scratch) = match opened {
            (Ok(memory), Ok(state), Ok(scratch)) => (memory, state, scratch),
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                // Whoever removes it begins with its description.
                return match directory.join(DESCRIPTION).exists() && error.is_not_found() {
                    true => Ok(Found::Broken),
                    false => Err(error),
                };
            }
        };
        let look = || format!("look at the files of template {id}");
        let has_scratch = match description.scratch.zip(scratch.as_ref()) {
            Some((size, file)) => size.is_that_of(file).attempt(look)?,
            None => true,
        };
        let whole = has_scratch
            && description.memory.is_that_of(&memory).attempt(look)?
            && description.id == id.as_str()
            && digest(&mut state).attempt(|| format!("read the state of template {id}"))?
                == description.state_digest;
        if !whole {
            return Ok(Found::Broken);
        }
        Ok(Found::Whole(Self {
            id: id.clone(),
            memory,
            memory_bytes: description.memory.bytes,
            state,
            scratch,
            notes: description.driver_notes,
        }))
    }

    pub(super) fn id(&self) -> &TemplateId {
        &self.id
    }

    /// What one VM goes on with. Its memory is being copied while its VMM starts; its scratch disk,
    /// which has little in it, has been.
    pub(super) async fn copy(self, scratch: Option<Arc<ScratchDisk>>) -> TemplateResult<SavedVm> {
        let attempt = || format!("copy the memory of template {}", self.id);
        let own = memory::anonymous(self.memory_bytes).attempt(attempt)?;
        let filling = own.try_clone().attempt(attempt)?;
        let (copied, filled) = oneshot::channel();
        let memory = self.memory;
        tokio::task::spawn_blocking(move || {
            let done = memory::copy(&memory, &filling).map(drop);
            let done =
                done.and_then(|()| passed("template.memory-copied").map_err(io::Error::other));
            // Nobody asks any more where the VM was given up.
            let _ = copied.send(done);
        });
        if let Some(own) = scratch {
            let image = self
                .scratch
                .ok_or_else(|| io::Error::from(ErrorKind::NotFound));
            let image = image.attempt(|| format!("find the disk of template {}", self.id))?;
            blocking(move || {
                let filled = own.fill(|file| memory::copy(&image, file).map(drop));
                Ok(filled?)
            })
            .await?;
        }
        Ok(SavedVm {
            memory: own.into(),
            filled,
            state: self.state.into(),
            notes: self.notes,
        })
    }
}

/// The digest of a file from its beginning, which it is at afterwards again.
pub(super) fn digest(file: &mut File) -> io::Result<String> {
    let mut data = Vec::new();
    file.rewind()?;
    file.by_ref().take(STATE_BYTES_MAX).read_to_end(&mut data)?;
    file.rewind()?;
    Ok(hex(&Sha256::digest(&data)))
}
