//! What the start needs and the way to the host does not: done on another processor meanwhile.

use std::thread::{Builder, JoinHandle};

use super::loopback;
use crate::cgroup::{self, MemoryOfContainers};
use crate::error::{Attempt as _, Error, Result};
use crate::modules::Modules;

/// The work under way.
pub(super) struct Beside(JoinHandle<Result<MemoryOfContainers>>);

impl Beside {
    pub(super) fn start(modules: &Modules) -> Result<Self> {
        let modules = modules.clone();
        let work = move || {
            loopback::bring_up()?;
            let memory = cgroup::prepare()?;
            modules.load_beside();
            Ok(memory)
        };
        let thread = Builder::new().name("beside".into()).spawn(work);
        Ok(Self(thread.attempt(|| {
            "start the thread that works beside the start".into()
        })?))
    }

    /// Waits until it is done.
    pub(super) fn finish(self) -> Result<MemoryOfContainers> {
        self.0.join().unwrap_or_else(|_| {
            Err(Error::State {
                object: "the thread beside the start".into(),
                state: "broken",
            })
        })
    }
}
