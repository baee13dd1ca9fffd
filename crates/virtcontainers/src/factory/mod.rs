//! Where VMs come from.
//!
//! A [`Factory`] gets everything that a VM is to have, and the driver that can make it, and gives
//! a VM whose VMM runs. [`Direct`] has the driver launch one; [`Template`] has one go on from a
//! guest that booted before. [`Cache`] has whole machines that wait already, which a sandbox takes
//! before anything is made for it; where none of its kind waits, it has a template.

mod cache;
mod direct;
mod error;
mod template;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use vc_config::Config;
pub use vc_hypervisor::{Capabilities, Hypervisor, Vm, VmSpec};
use vc_storage::ScratchDisk;
use vc_types::VmSize;

pub use cache::{Cache, Kind, Pool, Taken, Waiting};
pub(crate) use cache::{
    Door, Ended, FORM, FORM_OF, Facts, FilesTaken, HAND_OVER_LIMIT, KIND, Link, MakersLock,
    TEMPLATE, WAITS,
};
pub use direct::Direct;
pub use error::{Error, Result};
pub use template::{
    Library, ListedTemplate, NoTemplateId, Template, TemplateError, TemplateId, TemplateResult,
};

/// Where the VMs of a runtime come from.
///
/// ```
/// use virtcontainers::factory::{Direct, Factory, Hypervisor, Obtained, Result, VmRequest};
///
/// /// Counts the VMs that it gives.
/// #[derive(Debug, Default)]
/// struct Counting(std::sync::atomic::AtomicUsize);
///
/// #[async_trait::async_trait]
/// impl Factory for Counting {
///     async fn obtain(&self, driver: &dyn Hypervisor, request: VmRequest) -> Result<Obtained> {
///         self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
///         Direct.obtain(driver, request).await
///     }
/// }
/// ```
#[async_trait]
pub trait Factory: fmt::Debug + Send + Sync {
    /// A VM as it is asked for, whose VMM runs and answers. The caller becomes its keeper: it ends
    /// when the returned value is dropped. A failure, or dropping the future, leaves nothing of
    /// the request.
    ///
    /// # Errors
    ///
    /// Those of [`Hypervisor::launch`]. That a faster way does not serve is none: the VM is
    /// launched directly then, and a warning says why. Only where the way was taken and failed,
    /// so that what serves the VM is gone, the error is [`Error::NotCloned`]; the caller
    /// asks once more, for a VM that boots.
    async fn obtain(&self, driver: &dyn Hypervisor, request: VmRequest) -> Result<Obtained>;

    /// Whether any machine may wait, of whatever kind: what a sandbox needs is looked at only then.
    fn has_waiting(&self) -> bool {
        false
    }

    /// A whole machine of this kind that waits: the caller's from now on, and it ends when the value
    /// is dropped. Nothing where none waits.
    async fn take(&self, _kind: &Kind) -> Option<Taken> {
        None
    }

    /// How many machines of a kind are to wait, by the configuration.
    fn wanted(&self) -> u32 {
        0
    }

    /// A VM that went on from this template did not come up: nobody is to get one from it again.
    fn discard(&self, _template: &TemplateId) {}
}

/// The factory that a configuration asks for: machines that wait and templates where the latter are
/// enabled, or where the VMs are throw-away ones and nothing speaks against it (`factory.auto`).
///
/// ```
/// let config = vc_config::Config::default();
/// let factory = virtcontainers::factory::configured(&config, false);
/// assert_eq!(format!("{factory:?}"), "Direct");
/// ```
pub fn configured(config: &Config, throw_away: bool) -> Arc<dyn Factory> {
    let settings = &config.factory;
    match settings.enable_template || (settings.auto && throw_away) {
        true => Arc::new(Cache::new(config)),
        false => Arc::new(Direct),
    }
}

/// A VM that is wanted.
#[derive(Debug)]
#[non_exhaustive]
pub struct VmRequest {
    /// What it is to be and to have.
    pub spec: VmSpec,
    /// Whether its own guest has to boot: a faster way was tried before, and failed.
    pub boots: bool,
    /// How large it is where its own guest boots: there is no use in a VM that grows at once. One that
    /// goes on from another's guest begins as that did, and grows.
    pub size_of_boot: VmSize,
    /// The scratch disk among its disks, which has nothing in it so far.
    pub(crate) scratch: Option<Arc<ScratchDisk>>,
}

impl VmRequest {
    /// A request for a VM that is this.
    pub fn new(spec: VmSpec) -> Self {
        Self {
            size_of_boot: spec.size(),
            spec,
            boots: false,
            scratch: None,
        }
    }

    /// The scratch disk, where a template has one like it.
    pub(crate) fn scratch_of_template(&self) -> Option<Arc<ScratchDisk>> {
        let scratch = self.scratch.as_ref();
        scratch.filter(|_| self.spec.scratch_of_template).cloned()
    }
}

/// A VM that a factory gave.
#[non_exhaustive]
pub struct Obtained {
    /// The VM.
    pub vm: Box<dyn Vm>,
    /// How it came to be.
    pub origin: Origin,
}

impl Obtained {
    /// A VM that came to be in this way.
    pub fn new(vm: Box<dyn Vm>, origin: Origin) -> Self {
        Self { vm, origin }
    }
}

impl fmt::Debug for Obtained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Obtained")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// How a VM came to be, for whoever prepares its guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Its own guest boots, and says when it is ready.
    Booted,
    /// Its guest goes on from a template, and has listened since before that was saved.
    Cloned(TemplateId),
    /// It waited, and its guest was ready.
    Waited,
}
