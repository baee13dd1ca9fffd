//! What is removed behind the backs of those who asked for it and have gone, or are answered only
//! afterwards.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::error::{Error, Result};

/// How long an answer waits for what is removed before it. A thread that mounts or opens something of
/// somebody else's may hang.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How much is being removed that was made and is not wanted any more. Copies count together.
#[derive(Clone, Debug)]
pub(crate) struct Undoing(watch::Sender<usize>);

impl Undoing {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Begins to remove something.
    pub(crate) fn begin(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.send_modify(|number| *number += 1);
        let counted = Counted(self.0.clone());
        tokio::spawn(async move {
            work.await;
            drop(counted);
        });
    }

    /// Waits until nothing is being removed any more, at most this long.
    pub(crate) async fn ended(&self, limit: Duration) {
        let mut count = self.0.subscribe();
        if timeout(limit, count.wait_for(|number| *number == 0))
            .await
            .is_err()
        {
            tracing::warn!("what was made and given up is not removed in time");
        }
    }

    /// Does what blocks on a thread for it. Where whoever waits for it goes away, it is being removed
    /// until the thread has made it and it was dropped.
    pub(crate) fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> {
        Awaited {
            undoing: self.clone(),
            work: Some(spawn_blocking(work)),
        }
    }
}

/// One that is being removed, also where that panics.
struct Counted(watch::Sender<usize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|number| *number -= 1);
    }
}

/// What a thread makes, until somebody has it.
struct Awaited<T: Send + 'static> {
    undoing: Undoing,
    work: Option<JoinHandle<Result<T>>>,
}

impl<T: Send + 'static> Future for Awaited<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let Some(work) = &mut self.work else {
            // Somebody has it.
            return Poll::Pending;
        };
        let done = ready!(Pin::new(work).poll(context));
        self.work = None;
        Poll::Ready(done.map_err(|error| Error::System {
            attempt: "do what blocks".into(),
            source: std::io::Error::other(error),
        })?)
    }
}

impl<T: Send + 'static> Drop for Awaited<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.undoing.begin(async move { drop(work.await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn what_a_thread_makes_for_nobody_is_removed_before_that_is_over() {
        let undoing = Undoing::new();
        let made = undoing.blocking(|| Ok(7));
        assert_eq!(made.await.unwrap(), 7);
        undoing.ended(ANSWER_LIMIT).await;

        let (release, released) = mpsc::channel::<()>();
        let alive = Arc::new(());
        let root = Arc::clone(&alive);
        drop(undoing.blocking(move || {
            let _ = released.recv();
            Ok(root)
        }));
        let waiting = undoing.clone();
        let mut ended = tokio::spawn(async move { waiting.ended(ANSWER_LIMIT).await });
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(!ended.is_finished(), "the thread has not made it yet");
        release.send(()).unwrap();
        (&mut ended).await.unwrap();
        assert_eq!(Arc::strong_count(&alive), 1, "it was dropped");
    }

    #[tokio::test]
    async fn what_hangs_is_waited_for_no_longer_than_its_limit() {
        let undoing = Undoing::new();
        undoing.begin(std::future::pending());
        undoing.ended(Duration::from_millis(20)).await;
        assert_eq!(*undoing.0.borrow(), 1);
    }

    #[tokio::test]
    async fn a_removal_that_panics_is_over() {
        let undoing = Undoing::new();
        undoing.begin(async { panic!("a defect") });
        undoing.ended(ANSWER_LIMIT).await;
        assert_eq!(*undoing.0.borrow(), 0);
    }
}
