//! VMs that wait before anybody asks for them.
//!
//! ```text
//! holder:  a sandbox without a container ─▶ rehearses containers ─▶ stands still ─▶ waits at its door
//! taker:   take ─▶ Link: the machine runs, its files and its life are the taker's
//! ```
//!
//! A machine waits with all its devices and a guest whose code has been executed in this very VMM:
//! an emulator translates each piece of it once. So what is taken is a whole machine, not a VM
//! that devices are made for. Nobody's files, network or name have been in it.
//!
//! Each is held by a process of its own, its *holder*, which starts all of it and lets it go when
//! the taker does. No process holds two, so that none can lose what others have taken.

mod kind;
mod link;
mod pool;

use async_trait::async_trait;
use vc_config::Config;

pub(crate) use kind::FORM;
pub use kind::Kind;
pub(crate) use link::{Door, Ended, Facts, FilesTaken, HAND_OVER_LIMIT, Link};
pub(crate) use pool::{FORM_OF, KIND, MakersLock, TEMPLATE, WAITS};
pub use pool::{Pool, Taken, Waiting};

use super::{Factory, Hypervisor, Obtained, Result, Template, TemplateId, VmRequest};

/// Gives machines that wait, and where none of the kind does, VMs that go on from a template.
#[derive(Debug)]
pub struct Cache {
    pool: Pool,
    template: Template,
    number: u32,
}

impl Cache {
    /// A factory with the waiting machines and the templates of this configuration.
    ///
    /// ```
    /// use virtcontainers::factory::Cache;
    ///
    /// let cache = Cache::new(&vc_config::Config::default());
    /// assert!(cache.pool().root().ends_with(".waiting:vms"));
    /// ```
    pub fn new(config: &Config) -> Self {
        Self {
            pool: Pool::of(config),
            template: Template::new(config),
            number: config.factory.vm_cache_number,
        }
    }

    /// The machines that wait.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

#[async_trait]
impl Factory for Cache {
    async fn obtain(&self, driver: &dyn Hypervisor, request: VmRequest) -> Result<Obtained> {
        self.template.obtain(driver, request).await
    }

    fn has_waiting(&self) -> bool {
        self.pool.root().exists()
    }

    async fn take(&self, kind: &Kind) -> Option<Taken> {
        self.pool.take(kind).await
    }

    fn wanted(&self) -> u32 {
        self.number
    }

    fn discard(&self, template: &TemplateId) {
        self.template.discard(template);
    }
}
