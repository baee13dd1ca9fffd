//! Collects every child that ends: ours, and the orphans that a first process inherits.
//!
//! This is the only place that waits. A pid cannot be used again before it was collected here, and
//! everything that signals or claims runs on the same thread, so a pid of the table is always the
//! process that it was.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::clock::uptime_us;
use crate::error::{Attempt as _, Result};

/// Ends of unknown processes that are kept while one is being made. A container that forks faster
/// than this within one launch has orphans only when it has no pid namespace.
const UNCLAIMED_MAX: usize = 4096;

/// Killed processes that are told of beside a launch that failed.
const KILLED_MAX: usize = 8;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The exit code, zero when a signal ended the process.
    pub(crate) code: u32,
    /// The signal, or zero.
    pub(crate) signal: u32,
    /// When it was collected.
    pub(crate) uptime_us: u64,
}

/// Tells the end of a claimed process, once for every receiver.
pub(crate) type ExitReceiver = watch::Receiver<Option<Exit>>;

/// The one who waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reaper {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    claimed: HashMap<Pid, watch::Sender<Option<Exit>>>,
    unclaimed: HashMap<Pid, Exit>,
    expectations: usize,
}

/// A process is being made whose pid is not known yet. While one of these lives, the ends of
/// unknown processes are kept.
#[derive(Debug)]
pub(crate) struct Expectation {
    reaper: Reaper,
}

impl Reaper {
    /// Collects until the runtime ends.
    pub(crate) fn start(&self) -> Result<()> {
        let mut children =
            signal(SignalKind::child()).attempt(|| "listen for the end of children".into())?;
        let reaper = self.clone();
        tokio::spawn(async move {
            loop {
                reaper.collect();
                if children.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// To be called before a process is made.
    pub(crate) fn expect(&self) -> Expectation {
        self.lock().expectations += 1;
        Expectation {
            reaper: self.clone(),
        }
    }

    fn collect(&self) {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid, exit_of(status)),
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn ended(&self, pid: Pid, exit: Exit) {
        let mut state = self.lock();
        if let Some(sender) = state.claimed.remove(&pid) {
            sender.send_replace(Some(exit));
        } else if state.expectations > 0 && state.unclaimed.len() < UNCLAIMED_MAX {
            state.unclaimed.insert(pid, exit);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expectation {
    /// The process that was expected is `pid`: tells its end, also when that was already.
    pub(crate) fn claim(&self, pid: Pid) -> ExitReceiver {
        let mut state = self.reaper.lock();
        let exit = state.unclaimed.remove(&pid);
        let (sender, receiver) = watch::channel(exit);
        if exit.is_none() {
            state.claimed.insert(pid, sender);
        }
        receiver
    }

    /// Processes that nobody claimed and that a signal has ended meanwhile: what was to be made may have needed
    /// one of them.
    pub(crate) fn killed(&self) -> Vec<(Pid, Exit)> {
        self.reaper.collect();
        self.reaper.lock().killed()
    }
}

impl State {
    fn killed(&self) -> Vec<(Pid, Exit)> {
        let killed = self.unclaimed.iter().filter(|(_, exit)| exit.signal != 0);
        let mut killed: Vec<_> = killed.map(|(pid, exit)| (*pid, *exit)).collect();
        killed.sort_by_key(|(pid, _)| pid.as_raw_nonzero());
        killed.truncate(KILLED_MAX);
        killed
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        let mut state = self.reaper.lock();
        state.expectations -= 1;
        if state.expectations == 0 {
            state.unclaimed.clear();
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    let number = |value: Option<i32>| {
        value
            .and_then(|value| u32::try_from(value).ok())
            .unwrap_or(0)
    };
    Exit {
        code: number(status.exit_status()),
        signal: number(status.terminating_signal()),
        uptime_us: uptime_us(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: Exit = Exit {
        code: 3,
        signal: 0,
        uptime_us: 7,
    };

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    #[test]
    fn an_end_after_the_claim_is_told() {
        let reaper = Reaper::default();
        let receiver = reaper.expect().claim(pid(10));
        assert_eq!(*receiver.borrow(), None);
        reaper.ended(pid(10), EXIT);
        assert_eq!(*receiver.borrow(), Some(EXIT));
    }

    #[test]
    fn an_end_before_the_claim_is_not_lost() {
        let reaper = Reaper::default();
        let expectation = reaper.expect();
        reaper.ended(pid(10), EXIT);
        reaper.ended(pid(11), Exit { code: 4, ..EXIT });
        assert_eq!(*expectation.claim(pid(10)).borrow(), Some(EXIT));
    }

    #[test]
    fn a_pid_that_comes_again_is_another_process() {
        let reaper = Reaper::default();
        let first = reaper.expect().claim(pid(10));
        reaper.ended(pid(10), EXIT);
        let second = reaper.expect().claim(pid(10));
        assert_eq!(*second.borrow(), None);
        reaper.ended(pid(10), Exit { code: 5, ..EXIT });
        assert_eq!(first.borrow().unwrap().code, 3);
        assert_eq!(second.borrow().unwrap().code, 5);
    }

    #[test]
    fn who_was_killed_meanwhile_is_known() {
        let reaper = Reaper::default();
        let expectation = reaper.expect();
        let killed = Exit {
            code: 0,
            signal: 9,
            ..EXIT
        };
        reaper.ended(pid(12), killed);
        reaper.ended(pid(10), EXIT);
        reaper.ended(pid(11), killed);
        assert_eq!(*expectation.claim(pid(12)).borrow(), Some(killed));
        assert_eq!(reaper.lock().killed(), [(pid(11), killed)]);
    }

    #[test]
    fn orphans_are_not_kept() {
        let reaper = Reaper::default();
        reaper.ended(pid(10), EXIT);
        let expectation = reaper.expect();
        reaper.ended(pid(11), EXIT);
        drop(expectation);
        assert_eq!(*reaper.expect().claim(pid(10)).borrow(), None);
        assert_eq!(*reaper.expect().claim(pid(11)).borrow(), None);
    }
}
