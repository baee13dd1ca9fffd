//! What all containers may have of the guest's memory: it grows and shrinks with that.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;
use std::time::Duration;

use super::{CONTAINERS, MOUNT_POINT, memory_available_bytes, memory_total_bytes, write};
use crate::error::{Attempt as _, Error, Result};
use crate::uevents::Uevents;

/// What the containers leave to the agent and the kernel, at least.
const RESERVED_BYTES_MIN: u64 = 32 << 20;

/// The limit of the cgroup of all containers.
#[derive(Debug)]
pub(crate) struct MemoryOfContainers {
    /// The guest's memory at its start.
    total: u64,
    /// What of it the containers may have.
    limit: u64,
    followed: AtomicBool,
}

impl MemoryOfContainers {
    /// That of a guest that starts.
    pub(super) fn now() -> Result<Self> {
        let total = memory_total_bytes();
        let memory = Self {
            total,
            limit: limit(total, memory_available_bytes()?),
            followed: AtomicBool::new(false),
        };
        memory.apply(total)?;
        Ok(memory)
    }

    /// Waits until the guest has so much more memory than at its start, and until the containers may
    /// have it. From the first call on, what they may have follows the guest's memory. Blocks.
    pub(crate) fn use_more(self: &Arc<Self>, more: u64, within: Duration) -> Result<()> {
        let events = Uevents::listen()?;
        self.follow()?;
        let wanted = self.total.saturating_add(more);
        let grown = events.wait_until(within, || {
            let total = memory_total_bytes();
            (total >= wanted).then_some(total)
        })?;
        match grown {
            Some(total) => self.apply(total),
            None => Err(Error::Timeout {
                what: format!("{} MiB more of memory", more >> 20),
                limit: within,
            }),
        }
    }

    fn follow(self: &Arc<Self>) -> Result<()> {
        if self.followed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let (memory, events) = (Arc::clone(self), Uevents::listen()?);
        let follow = move || {
            loop {
                let applied = memory.apply(memory_total_bytes());
                if let Err(error) = applied.and_then(|()| events.wait()) {
                    tracing::warn!(
                        error = error.chain(),
                        "the containers' limit does not follow the memory"
                    );
                    return;
                }
            }
        };
        let thread = Builder::new().name("memory".into()).spawn(follow);
        thread.attempt(|| "start the thread that follows the guest's memory".into())?;
        Ok(())
    }

    fn apply(&self, total: u64) -> Result<()> {
        let file = Path::new(MOUNT_POINT).join(CONTAINERS).join("memory.max");
        write(&file, &self.of(total).to_string())
    }

    /// What comes later is for the containers alone.
    fn of(&self, total: u64) -> u64 {
        self.limit.saturating_add(total.saturating_sub(self.total))
    }
}

/// Of what the start has left, which is less than the total by the kernel and the agent.
fn limit(total_bytes: u64, available_bytes: u64) -> u64 {
    let reserved = RESERVED_BYTES_MIN
        .max(total_bytes / 20)
        .min(total_bytes / 4);
    available_bytes
        .saturating_sub(reserved)
        .max(available_bytes / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_later_is_for_the_containers_and_goes_again() {
        let memory = MemoryOfContainers {
            total: 512 << 20,
            limit: 400 << 20,
            followed: AtomicBool::new(false),
        };
        assert_eq!(memory.of(512 << 20), 400 << 20);
        assert_eq!(memory.of(1024 << 20), 912 << 20);
        assert_eq!(memory.of(500 << 20), 400 << 20);
    }

    #[test]
    fn the_agent_keeps_some_memory_of_every_size() {
        assert_eq!(limit(64 << 20, 40 << 20), 24 << 20);
        assert_eq!(limit(256 << 20, 190 << 20), 158 << 20);
        assert_eq!(limit(4000 << 20, 3900 << 20), 3700 << 20);
        assert_eq!(limit(256 << 20, 20 << 20), 10 << 20);
    }
}
