//! Makes a template.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vc_hypervisor::{Hypervisor, TemplateFiles};
use vc_store::UnixMillis;
use vc_types::ByteSize;

use super::error::{Attempt as _, TemplateResult};
use super::library::{Library, MakersLock};
use super::stored::{DESCRIPTION, Description, MEMORY, STATE, Stored, digest};
use super::{TemplateId, blocking, memory, passed};
use crate::error::chain;
use crate::factory::VmRequest;

/// A template that is being made. Dropping it removes what there is of it.
struct Making {
    library: Arc<Library>,
    directory: PathBuf,
    /// Goes last: whoever has it next finds nothing.
    _lock: MakersLock,
}

/// What becomes of an attempt to make a template.
enum Begun {
    Making(Making),
    /// It is there.
    Found(Stored),
    /// Another process makes one.
    Busy,
}

/// Boots a guest, saves it and puts it into its place. Nothing when another process makes a
/// template just now.
pub(super) async fn make(
    library: &Arc<Library>,
    driver: &dyn Hypervisor,
    id: TemplateId,
    request: &VmRequest,
    boot_limit: Duration,
) -> TemplateResult<Option<Stored>> {
    let spec = &request.spec;
    let (own, wanted, size) = (Arc::clone(library), id.clone(), spec.memory);
    let making = match blocking(move || Making::begin(own, &wanted, size)).await? {
        Begun::Making(making) => making,
        Begun::Found(stored) => return Ok(Some(stored)),
        Begun::Busy => return Ok(None),
    };
    let attempt = || format!("make the files of template {id}");
    let guest = memory::anonymous(spec.memory.bytes()).attempt(attempt)?;
    let state = making.create(STATE)?;
    let files = TemplateFiles {
        memory: guest.try_clone().attempt(attempt)?.into(),
        state: state.try_clone().attempt(attempt)?.into(),
    };
    passed("template.begun")?;
    let notes = driver.make_template(spec, files, boot_limit).await?;
    passed("template.saved")?;
    blocking(move || making.finish(&id, &guest, state, notes).map(Some)).await
}

impl Making {
    fn begin(library: Arc<Library>, id: &TemplateId, memory: ByteSize) -> TemplateResult<Begun> {
        let Some(lock) = library.try_lock()? else {
            return Ok(Begun::Busy);
        };
        // It may have been made since it was looked for.
        if let Some(stored) = library.find(id)? {
            return Ok(Begun::Found(stored));
        }
        Ok(Begun::Making(Self {
            directory: library.begin(&lock, memory)?,
            library,
            _lock: lock,
        }))
    }

    fn create(&self, name: &str) -> TemplateResult<File> {
        let path = self.directory.join(name);
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).mode(0o600);
        file.open(&path)
            .attempt(|| format!("make {}", path.display()))
    }

    /// Writes down what was saved, and opens it as whoever uses it does.
    fn finish(
        self,
        id: &TemplateId,
        guest: &File,
        mut state: File,
        driver_notes: String,
    ) -> TemplateResult<Stored> {
        let attempt = || format!("write template {id}");
        let memory_file = self.create(MEMORY)?;
        let memory_bytes = guest.metadata().attempt(attempt)?.len();
        memory_file.set_len(memory_bytes).attempt(attempt)?;
        let description = Description {
            id: id.to_string(),
            made: UnixMillis::now(),
            memory_bytes,
            data_bytes: memory::copy(guest, &memory_file).attempt(attempt)?,
            state_digest: digest(&mut state).attempt(attempt)?,
            driver_notes,
        };
        let text = serde_json::to_vec_pretty(&description).map_err(std::io::Error::from);
        let text = text.attempt(attempt)?;
        self.create(DESCRIPTION)?
            .write_all(&text)
            .attempt(attempt)?;
        passed("template.written")?;
        self.library.finish(&self.directory, id)?;
        passed("template.made")?;
        let stored = self.library.find(id)?;
        let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
        stored
            .ok_or_else(gone)
            .attempt(|| format!("find template {id}, which was made just now"))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // Gone where it was put into its place.
        if let Err(error) = self.library.clear(&self.directory) {
            let path: &Path = &self.directory;
            tracing::warn!(
                ?path,
                error = chain(&error),
                "what was made of a template stays"
            );
        }
    }
}
