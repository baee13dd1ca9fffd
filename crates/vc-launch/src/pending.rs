//! An answer that comes later, to be awaited by a task or waited for by a thread.

use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, Result};
use crate::process::LaunchedProcess;

/// A launch under way.
///
/// It is a future for every runtime, and [`Pending::wait`] is its blocking form. It always comes
/// to an end, within [`LAUNCH_LIMIT`](crate::LAUNCH_LIMIT) of its turn. When it is dropped before,
/// the process is ended as soon as it is there.
#[derive(Debug)]
#[must_use = "a launch that nobody waits for is ended"]
pub struct Pending {
    shared: Arc<Shared>,
    name: String,
}

/// The other end: gives the answer, or says by being dropped that none comes.
#[derive(Debug)]
pub(crate) struct Promise {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    answer: Option<Result<LaunchedProcess>>,
    closed: bool,
    waker: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.lock();
            change(&mut state);
            state.waker.take()
        };
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The two ends of the answer for the process `name`.
pub(crate) fn pending(name: &str) -> (Promise, Pending) {
    let shared = Arc::<Shared>::default();
    let promise = Promise {
        shared: Arc::clone(&shared),
    };
    let name = name.to_owned();
    (promise, Pending { shared, name })
}

impl Promise {
    pub(crate) fn keep(self, answer: Result<LaunchedProcess>) {
        self.shared.change(|state| state.answer = Some(answer));
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.shared.change(|state| state.closed = true);
    }
}

impl Pending {
    /// Waits for the process.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`] but [`Error::Launcher`].
    pub fn wait(self) -> Result<LaunchedProcess> {
        let mut state = self.shared.lock();
        loop {
            if let Some(answer) = state.take(&self.name) {
                return answer;
            }
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn take(&mut self, name: &str) -> Option<Result<LaunchedProcess>> {
        self.answer.take().or_else(|| {
            self.closed
                .then(|| Err(Error::Refused { name: name.into() }))
        })
    }
}

impl Future for Pending {
    type Output = Result<LaunchedProcess>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.lock();
        match state.take(&self.name) {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_is_an_error_and_not_a_wait_for_ever() {
        let (promise, pending) = pending("x");
        let waiting = std::thread::spawn(move || pending.wait());
        drop(promise);
        assert!(matches!(
            waiting.join().unwrap(),
            Err(Error::Refused { .. })
        ));
    }

    #[test]
    fn a_future_is_woken() {
        let (promise, mut pending) = pending("x");
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut pending).poll(&mut context).is_pending());
        promise.keep(Err(Error::Refused { name: "y".into() }));
        assert!(Pin::new(&mut pending).poll(&mut context).is_ready());
    }
}
