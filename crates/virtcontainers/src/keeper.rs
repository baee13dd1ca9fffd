//! What a process runs on that keeps a sandbox or stands for a container: it waits most of its life.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// How long a thread that may block stays for the next work. It ends before memory is given back:
/// its own end touches what was given back.
const BLOCKING_KEPT: Duration = Duration::from_millis(500);

/// Whether a keeper has done its work but for waiting. From then on it gives back what memory it
/// does not need: it lives as long as its container.
#[derive(Debug, Default)]
pub struct Waiting {
    begun: Notify,
    /// How often the thread had nothing to do.
    pauses: AtomicU64,
    /// That memory is to be given back in the next pause.
    due: AtomicBool,
    /// That nothing has happened since memory was given back.
    resting: AtomicBool,
    happened: Notify,
}

impl Waiting {
    /// From now on it waits.
    pub fn begin(&self) {
        self.begun.notify_one();
    }

    /// The thread has nothing to do. What is given back here is not touched on the way into the
    /// sleep.
    fn pause(&self, give_back: impl Fn()) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
        if self.due.swap(false, Ordering::Relaxed) {
            give_back();
            self.resting.store(true, Ordering::Relaxed);
        } else if self.resting.swap(false, Ordering::Relaxed) {
            self.happened.notify_one();
        }
    }

    /// Has memory given back when nothing has happened for a while, and again each time after
    /// something has.
    async fn rest(&self, quiet: Duration) -> Infallible {
        self.begun.notified().await;
        loop {
            let before = self.pauses.load(Ordering::Relaxed);
            tokio::time::sleep(quiet).await;
            if self.pauses.load(Ordering::Relaxed) - before > PAUSES_QUIET {
                continue;
            }
            self.due.store(true, Ordering::Relaxed);
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
    // One that cannot be smaller works all the same.
    let footprint = Footprint::of_this_process().ok();
    let executor = executor(&waiting, move || footprint.iter().for_each(Footprint::rest))?;
    let done = executor.block_on(async {
        tokio::select! {
            done = work(&waiting) => done,
            never = waiting.rest(QUIET) => match never {},
        }
    });
    executor.shutdown_timeout(UNDO_LIMIT);
    Ok(done)
}

fn executor(
    waiting: &Arc<Waiting>,
    give_back: impl Fn() + Send + Sync + 'static,
) -> std::io::Result<tokio::runtime::Runtime> {
    let waiting = Arc::clone(waiting);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(BLOCKING_KEPT)
        .on_thread_park(move || waiting.pause(&give_back))
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
        let executor = executor(&waiting, move || say.send(()).unwrap()).unwrap();
        executor.block_on(async {
            waiting.begin();
            let rest = waiting.rest(Duration::from_millis(20));
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
