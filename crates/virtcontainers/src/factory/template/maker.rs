//! Makes a template.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vc_hypervisor::{Hypervisor, TemplateFiles};
use vc_storage::ScratchDisk;
use vc_store::UnixMillis;

use super::error::{Attempt as _, TemplateResult};
use super::library::{Library, MakersLock};
use super::room::Wanted;
use super::stored::{DESCRIPTION, Description, MEMORY, SCRATCH, STATE, Size, Stored, digest};
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
    let like = request.scratch_of_template();
    let room = Wanted {
        memory: spec.memory,
        scratch: like.as_ref().map(|disk| disk.size()),
    };
    let (own, wanted) = (Arc::clone(library), id.clone());
    let making = match blocking(move || Making::begin(own, &wanted, room)).await? {
        Begun::Making(making) => making,
        Begun::Found(stored) => return Ok(Some(stored)),
        Begun::Busy => {
            let sandbox = &spec.sandbox;
            tracing::info!(%sandbox, template = %id, "another process makes a template just now, so the VM boots by itself");
            return Ok(None);
        }
    };
    let attempt = || format!("make the files of template {id}");
    let guest = memory::anonymous(spec.memory.bytes()).attempt(attempt)?;
    let state = making.create(STATE)?;
    passed("template.begun")?;
    let scratch = making.format(like).await?;
    passed("template.formatted")?;
    let passed_on = scratch.as_ref().map(File::try_clone).transpose();
    let files = TemplateFiles {
        memory: guest.try_clone().attempt(attempt)?.into(),
        state: state.try_clone().attempt(attempt)?.into(),
        scratch: passed_on.attempt(attempt)?.map(Into::into),
    };
    let notes = driver.make_template(spec, files, boot_limit).await?;
    passed("template.saved")?;
    let saved = Saved {
        guest,
        state,
        scratch,
        notes,
    };
    blocking(move || making.finish(&id, saved).map(Some)).await
}

/// What the driver has made.
struct Saved {
    /// Its memory, which is to be copied.
    guest: File,
    /// In their place.
    state: File,
    scratch: Option<File>,
    notes: String,
}

impl Making {
    fn begin(library: Arc<Library>, id: &TemplateId, wanted: Wanted) -> TemplateResult<Begun> {
        let Some(lock) = library.try_lock()? else {
            return Ok(Begun::Busy);
        };
        // It may have been made since it was looked for.
        if let Some(stored) = library.find(id)? {
            return Ok(Begun::Found(stored));
        }
        Ok(Begun::Making(Self {
            directory: library.begin(&lock, wanted)?,
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

    /// Makes the image of a scratch disk like this one, with a file system in it.
    async fn format(&self, like: Option<Arc<ScratchDisk>>) -> TemplateResult<Option<File>> {
        let Some(like) = like else { return Ok(None) };
        let attempt = || "make the scratch disk of a template".to_owned();
        let image = self.create(SCRATCH)?;
        image.set_len(like.size().bytes()).attempt(attempt)?;
        let formatting = like.formatter().begin(&image).attempt(attempt)?;
        blocking(move || Ok(formatting.finish()?)).await?;
        Ok(Some(image))
    }

    /// Writes down what was saved, and opens it as whoever uses it does.
    fn finish(self, id: &TemplateId, saved: Saved) -> TemplateResult<Stored> {
        let Saved {
            guest,
            mut state,
            scratch,
            notes,
        } = saved;
        let attempt = || format!("write template {id}");
        let memory_file = self.create(MEMORY)?;
        let bytes = guest.metadata().attempt(attempt)?.len();
        memory_file.set_len(bytes).attempt(attempt)?;
        let description = Description {
            id: id.to_string(),
            made: UnixMillis::now(),
            memory: Size {
                bytes,
                data_bytes: memory::copy(&guest, &memory_file).attempt(attempt)?,
            },
            state_digest: digest(&mut state).attempt(attempt)?,
            // Its VMM has ended: nothing is written to it any more.
            scratch: scratch
                .as_ref()
                .map(Size::of)
                .transpose()
                .attempt(attempt)?,
            driver_notes: notes,
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
