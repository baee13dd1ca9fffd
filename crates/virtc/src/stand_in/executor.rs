//! What a stand-in's work runs on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vc_launch::Footprint;

use super::Outcome;

/// How long the undoing of what was given up may wait for the disk.
const UNDO_LIMIT: Duration = Duration::from_secs(10);

/// Whether a stand-in has done its work but for waiting. From then on it gives back what memory it
/// does not need: it lives as long as its container.
#[derive(Debug, Default)]
pub(super) struct Waiting(AtomicBool);

impl Waiting {
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does a stand-in's work on this thread, and lets what was given up meanwhile undo itself.
pub(super) fn block_on(work: impl AsyncFnOnce(&Waiting) -> Outcome) -> Outcome {
    let waiting = Arc::new(Waiting::default());
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all();
    // One that cannot be smaller works all the same.
    if let Ok(footprint) = Footprint::of_this_process() {
        let waiting = Arc::clone(&waiting);
        builder.on_thread_park(move || {
            if waiting.0.load(Ordering::Relaxed) {
                footprint.rest();
            }
        });
    }
    match builder.build() {
        Ok(executor) => {
            let outcome = executor.block_on(work(&waiting));
            executor.shutdown_timeout(UNDO_LIMIT);
            outcome
        }
        Err(error) => {
            tracing::error!(%error, "the system gives no event queue");
            Outcome::FAILED
        }
    }
}
