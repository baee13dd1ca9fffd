//! VMs that go on from a template.
//!
//! ```text
//! obtain ─▶ Library: a template of this id? ──yes──▶ copy its memory and scratch disk ─▶ launch the clone
//!                │ no
//!                ▼
//!           the makers' lock ─▶ boot, save, put in place ─▶ as above
//!                │ somebody else makes one
//!                ▼
//!           boot directly
//! ```
//!
//! A template is taken before anything of a sandbox reaches the guest, and only the user who made
//! it can read it. Each clone gets the seed of its random numbers, its clock and its name before
//! any of its containers exist.

mod error;
mod id;
mod library;
mod maker;
mod memory;
mod room;
mod stored;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use vc_config::Config;
use vc_storage::Formatter;

pub use error::{TemplateError, TemplateResult};
pub(super) use id::hex;
pub use id::{NoTemplateId, TemplateId};
pub use library::{Library, Listed as ListedTemplate};
use stored::Stored;

use crate::error::chain;
use crate::fault;

use super::{Direct, Error, Factory, Hypervisor, Obtained, Origin, Result, VmRequest};

/// Gives VMs that go on from a template of the library, which it makes where there is none.
///
/// A VM that no template can serve is launched directly, with a warning that says why. Where
/// another process makes the template just now, nobody waits for it.
#[derive(Debug)]
pub struct Template {
    library: Arc<Library>,
    boot_limit: Duration,
}

impl Template {
    /// A factory with the library of this configuration.
    ///
    /// ```
    /// use virtcontainers::factory::Template;
    ///
    /// let factory = Template::new(&vc_config::Config::default());
    /// for template in factory.library().list()? {
    ///     println!("{} {} bytes", template.id, template.bytes);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(config: &Config) -> Self {
        Self {
            library: Arc::new(Library::open(&config.factory)),
            boot_limit: config.limits.agent_ready_ms.duration(),
        }
    }

    /// The templates that there are.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// The template for a VM like this one, made where there is none. Nothing where the driver
    /// makes no templates, or somebody else makes this one just now.
    async fn stored(
        &self,
        driver: &dyn Hypervisor,
        request: &VmRequest,
    ) -> TemplateResult<Option<Stored>> {
        let Some(parts) = driver.template_key(&request.spec)? else {
            return Ok(None);
        };
        let id = TemplateId::of(&with_scratch(parts, request));
        let (library, wanted) = (Arc::clone(&self.library), id.clone());
        if let Some(stored) = blocking(move || library.find(&wanted)).await? {
            return Ok(Some(stored));
        }
        maker::make(&self.library, driver, id, request, self.boot_limit).await
    }
}

#[async_trait]
impl Factory for Template {
    async fn obtain(&self, driver: &dyn Hypervisor, mut request: VmRequest) -> Result<Obtained> {
        if request.boots {
            return Direct.obtain(driver, request).await;
        }
        let saved = async {
            let Some(stored) = self.stored(driver, &request).await? else {
                return Ok(None);
            };
            let id = stored.id().clone();
            let saved = stored.copy(request.scratch_of_template()).await?;
            passed("template.copying")?;
            Ok::<_, TemplateError>(Some((id, saved)))
        };
        let id = match saved.await {
            Ok(Some((id, saved))) => {
                request.spec.template = Some(saved);
                id
            }
            Ok(None) => return Direct.obtain(driver, request).await,
            Err(error) => {
                let sandbox = &request.spec.sandbox;
                let error = chain(&error);
                tracing::warn!(%sandbox, error, "no template serves the VM, which boots by itself");
                if let Some(scratch) = &request.scratch {
                    scratch.empty()?;
                }
                return Direct.obtain(driver, request).await;
            }
        };
        match driver.launch(request.spec).await {
            Ok(vm) => Ok(Obtained::new(vm, Origin::Cloned(id))),
            Err(source) => Err(Error::NotCloned {
                template: id,
                source,
            }),
        }
    }

    fn discard(&self, template: &TemplateId) {
        match self.library.remove(template) {
            Ok(_) => tracing::warn!(%template, "a template that does not serve was removed"),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(%template, error, "a template that does not serve stays");
            }
        }
    }
}

/// All that a template is made of: the driver says which disks it has, and not how they are formatted.
fn with_scratch(parts: String, request: &VmRequest) -> String {
    match request.scratch_of_template() {
        Some(_) => format!("{parts}\nscratch {}", Formatter::likeness()),
        None => parts,
    }
}

/// A point at which a test may ask for a failure.
fn passed(point: &'static str) -> TemplateResult<()> {
    fault::point(point).map_err(|_| TemplateError::Fault { point })
}

/// Does what waits for the disk, or copies much, on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> TemplateResult<T> + Send + 'static,
) -> TemplateResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopped) => Err(TemplateError::System {
            attempt: "run a thread for a template".into(),
            source: std::io::Error::other(stopped),
        }),
    }
}
