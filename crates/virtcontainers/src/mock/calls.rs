//! The calls of a guest's agent, and which of them fail or hang.

use std::collections::HashMap;

use tokio::sync::watch;
use ttrpc::{Code, get_status};

/// What a guest is asked for, by the name of the agent's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// The guest's own call, that it is ready. A guest that fails at it panics instead.
    Ready,
    /// The first call of a host.
    Hello,
    /// Preparing the sandbox.
    CreateSandbox,
    /// Writing back.
    DestroySandbox,
    /// Writing a file.
    CopyFile,
    /// Making a container.
    CreateContainer,
    /// Starting its process.
    StartContainer,
    /// Removing it.
    RemoveContainer,
    /// Adding a process.
    ExecProcess,
    /// Signalling one process, or all of a container.
    SignalProcess,
    /// Waiting for a process.
    WaitProcess,
    /// Attaching to a stream.
    Attach,
    /// Listing processes.
    ListProcesses,
    /// Stopping a container where it is.
    PauseContainer,
    /// Letting it go on.
    ResumeContainer,
    /// Changing what it may use.
    UpdateContainer,
    /// What it has used.
    StatsContainer,
    /// Putting processors and memory to use that came later.
    Grow,
    /// The size of a terminal.
    TtyWinResize,
    /// Asking for the clock, or correcting it.
    Clock,
}

#[derive(Clone, Debug, Default)]
struct Step {
    failure: Option<String>,
    hangs: bool,
    /// How many of those that hang go on.
    let_pass: usize,
    /// How many wait in it.
    waiting: usize,
    /// How often it was called.
    called: usize,
}

/// What was said about each call of one guest.
#[derive(Debug)]
pub(super) struct Calls(watch::Sender<HashMap<Call, Step>>);

impl Default for Calls {
    fn default() -> Self {
        Self(watch::Sender::new(HashMap::new()))
    }
}

impl Calls {
    fn change(&self, call: Call, change: impl FnOnce(&mut Step)) {
        self.0
            .send_modify(|steps| change(steps.entry(call).or_default()));
    }

    pub(super) fn fail(&self, call: Call, reason: String) {
        self.change(call, |step| step.failure = Some(reason));
    }

    pub(super) fn hang(&self, call: Call, hangs: bool) {
        self.change(call, |step| {
            step.hangs = hangs;
            step.let_pass = 0;
        });
    }

    pub(super) fn let_pass(&self, call: Call) {
        self.change(call, |step| step.let_pass += 1);
    }

    pub(super) fn called(&self, call: Call) -> usize {
        self.0.borrow().get(&call).map_or(0, |step| step.called)
    }

    pub(super) fn waiting(&self, call: Call) -> usize {
        self.0.borrow().get(&call).map_or(0, |step| step.waiting)
    }

    /// Waits until somebody hangs in `call`.
    pub(super) async fn reached(&self, call: Call) {
        self.wait_for(call, |step| step.waiting > 0).await;
    }

    /// Waits until `call` was called so often.
    pub(super) async fn asked(&self, call: Call, times: usize) {
        self.wait_for(call, |step| step.called >= times).await;
    }

    async fn wait_for(&self, call: Call, is_so: impl Fn(&Step) -> bool) {
        let mut steps = self.0.subscribe();
        // The sender lives in `self`.
        let _ = steps
            .wait_for(|steps| steps.get(&call).is_some_and(&is_so))
            .await;
    }

    /// Does what was said about `call`.
    pub(super) async fn pass(&self, call: Call) -> Result<(), String> {
        self.change(call, |step| {
            step.called += 1;
            step.waiting += 1;
        });
        let waiting = Waiting { calls: self, call };
        while !self.may_go(call) {
            self.wait_for(call, |step| !step.hangs || step.let_pass > 0)
                .await;
        }
        drop(waiting);
        let mut failure = None;
        self.change(call, |step| failure = step.failure.take());
        failure.map_or(Ok(()), Err)
    }

    /// Whether whoever is in `call` goes on; one of those that were let pass.
    fn may_go(&self, call: Call) -> bool {
        let mut goes = true;
        self.change(call, |step| {
            goes = !step.hangs || step.let_pass > 0;
            step.let_pass = step.let_pass.saturating_sub(usize::from(step.hangs));
        });
        goes
    }
}

struct Waiting<'a> {
    calls: &'a Calls,
    call: Call,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.calls.change(self.call, |step| step.waiting -= 1);
    }
}

/// The agent's answer that something went wrong.
pub(super) fn refusal(code: Code, message: impl Into<String>) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(code, message.into()))
}
