//! What a process runs on that keeps a sandbox or stands for a container: it waits most of its life.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use vc_launch::Footprint;

/// How long the undoing of what was given up may wait for the disk.
const UNDO_LIMIT: Duration = Duration::from_secs(10);

/// How long nothing has happened when memory is given back. Where one thing follows another, as at
/// the end of a process and its machine, giving back holds up each of them.
const QUIET: Duration = Duration::from_secs(1);

/// Pauses of the thread in that time: those of the sleep itself, which the timer takes in stages.
const PAUSES_QUIET: u64 = 4;

/// The pause that follows on giving back is no sign of anything; the one after it is.
const WATCH_AFTER_NEXT: u8 = 2;

/// Whether a keeper has done its work but for waiting. From then on it gives back what memory it
/// does not need: it lives as long as its container.
#[derive(Debug, Default)]
pub struct Waiting {
    begun: Notify,
    /// How often the thread had nothing to do.
    pauses: AtomicU64,
    /// Pauses until something has happened since memory was given back; 0 while that is known.
    watching: AtomicU8,
    happened: Notify,
}

impl Waiting {
    /// From now on it waits.
    pub fn begin(&self) {
        self.begun.notify_one();
    }

    /// The thread has nothing to do.
    fn pause(&self) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
        // Only this thread changes it.
        let watching = self.watching.load(Ordering::Relaxed);
        self.watching
            .store(watching.saturating_sub(1), Ordering::Relaxed);
        if watching == 1 {
            self.happened.notify_one();
        }
    }

    /// Calls `rest` when nothing has happened for a while, and again each time after something
    /// has.
    async fn rest(&self, quiet: Duration, rest: impl Fn()) -> Infallible {
        self.begun.notified().await;
        loop {
            let before = self.pauses.load(Ordering::Relaxed);
            tokio::time::sleep(quiet).await;
            if self.pauses.load(Ordering::Relaxed) - before > PAUSES_QUIET {
                continue;
            }
            rest();
            self.watching.store(WATCH_AFTER_NEXT, Ordering::Relaxed);
            self.happened.notified().await;
        }
    }
}

/// Does a keeper's work on this thread, and lets what was given up meanwhile undo itself.
///
/// ```
/// let answer = virtcontainers::keeper::block_on(async |waiting| {
///     // From here on memory is given back whenever nothing has happened for a while.
///     waiting.begin();
///     42
/// })?;
/// assert_eq!(answer, 42);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// When the system gives no event queue.
pub fn block_on<T>(work: impl AsyncFnOnce(&Waiting) -> T) -> std::io::Result<T> {
    let waiting = Arc::new(Waiting::default());
    let executor = executor(&waiting)?;
    // One that cannot be smaller works all the same.
    let footprint = Footprint::of_this_process().ok();
    let give_back = || footprint.iter().for_each(Footprint::rest);
    let done = executor.block_on(async {
        tokio::select! {
            done = work(&waiting) => done,
            never = waiting.rest(QUIET, give_back) => match never {},
        }
    });
    executor.shutdown_timeout(UNDO_LIMIT);
    Ok(done)
}

fn executor(waiting: &Arc<Waiting>) -> std::io::Result<tokio::runtime::Runtime> {
    let waiting = Arc::clone(waiting);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || waiting.pause())
        .build()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn memory_is_given_back_again_after_something_has_happened() {
        let waiting = Arc::new(Waiting::default());
        let (say, mut given_back) = unbounded_channel();
        executor(&waiting).unwrap().block_on(async {
            waiting.begin();
            let rest = waiting.rest(Duration::from_millis(20), || say.send(()).unwrap());
            let twice = async {
                given_back.recv().await.unwrap();
                let before = waiting.pauses.load(Ordering::Relaxed);
                // Without this, the next one would never come.
                tokio::time::sleep(Duration::from_millis(40)).await;
                assert!(waiting.pauses.load(Ordering::Relaxed) > before);
                given_back.recv().await.unwrap();
            };
            tokio::select! {
                () = twice => {}
                never = rest => match never {},
            }
        });
    }
}
