//! What all containers may have of the guest's memory: it grows and shrinks with that.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::{CONTAINERS, MOUNT_POINT, memory_available_bytes, memory_total_bytes, write};
use crate::error::{Attempt as _, Error, Result};
use crate::uevents::Uevents;

/// What the containers leave to the agent and the kernel, at least.
const RESERVED_BYTES_MIN: u64 = 32 << 20;

/// The part of memory that the kernel's account of it takes: 64 bytes for each page.
const ACCOUNT_OF_PAGES: u64 = 64;

/// Between two looks at how much memory there is: what comes to a block that is in use makes no event.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

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
        let end = Instant::now() + within;
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            let grown = events.wait_until(rest.min(LOOK_AGAIN), || {
                let total = memory_total_bytes();
                (total >= wanted).then_some(total)
            })?;
            if let Some(total) = grown {
                return self.apply(total);
            }
            if rest.is_zero() {
                return Err(Error::Timeout {
                    what: format!("{} MiB more of memory", more >> 20),
                    limit: within,
                });
            }
        }
    }

    fn follow(self: &Arc<Self>) -> Result<()> {
        if self.followed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let begun = Uevents::listen().and_then(|events| {
            let memory = Arc::clone(self);
            let follow = move || {
                let Err(error) = memory.follow_with(&events);
                let error = error.chain();
                tracing::warn!(error, "the containers' limit does not follow the memory");
                memory.followed.store(false, Ordering::Relaxed);
            };
            let thread = Builder::new().name("memory".into()).spawn(follow);
            thread.attempt(|| "start the thread that follows the guest's memory".into())
        });
        if begun.is_err() {
            self.followed.store(false, Ordering::Relaxed);
        }
        begun.map(drop)
    }

    fn follow_with(&self, events: &Uevents) -> Result<Infallible> {
        loop {
            self.apply(memory_total_bytes())?;
            events.wait()?;
        }
    }

    /// A limit below what is used would have the kernel end processes that may be there.
    fn apply(&self, total: u64) -> Result<()> {
        let all = Path::new(MOUNT_POINT).join(CONTAINERS);
        let used = fs::read_to_string(all.join("memory.current")).ok();
        let used = used.and_then(|used| used.trim().parse().ok());
        let limit = self.of(total).max(used.unwrap_or(0));
        write(&all.join("memory.max"), &limit.to_string())
    }

    /// What comes later is for the containers, but for the kernel's account of its pages, which lies in
    /// what was there.
    fn of(&self, total: u64) -> u64 {
        let more = total.saturating_sub(self.total);
        self.limit.saturating_add(more - more / ACCOUNT_OF_PAGES)
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
        assert_eq!(memory.of(1024 << 20), 904 << 20);
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
