use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{mpsc, watch};
use ttrpc::Code;
use vc_types::{ExitStatus, Signal};

use super::super::calls::refusal;
use super::super::program::Program;
use super::super::script::lock;

/// Pieces of input on their way to the output of a process that echoes.
const ECHO_PIECES_MAX: usize = 16;

/// A process of a played guest.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: String,
    pub(super) args: Vec<String>,
    pub(super) terminal: bool,
    pub(super) program: Program,
    phase: watch::Sender<Phase>,
    /// Where its input goes.
    input: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    /// Where its output comes from, besides what its program prints.
    output: Mutex<Option<mpsc::Receiver<Vec<u8>>>>,
    /// They end with it.
    dependents: Mutex<Vec<Weak<Process>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for its start.
    Waiting,
    Running,
    Ended(ExitStatus),
}

impl Process {
    pub(super) fn new(id: String, args: Vec<String>, terminal: bool, program: Program) -> Self {
        let (input, output) = mpsc::channel(ECHO_PIECES_MAX);
        Self {
            id,
            args,
            terminal,
            program,
            phase: watch::Sender::new(Phase::Waiting),
            input: Mutex::new(Some(input)),
            output: Mutex::new(Some(output)),
            dependents: Mutex::default(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Ended(_))
    }

    /// Lets it go on, once.
    pub(super) fn start(&self) -> ttrpc::Result<()> {
        let mut before = Phase::Waiting;
        self.phase.send_if_modified(|phase| {
            before = phase.clone();
            let waits = *phase == Phase::Waiting;
            if waits {
                *phase = Phase::Running;
            }
            waits
        });
        if before != Phase::Waiting {
            let message = format!("process {:?} was started already", self.id);
            return Err(refusal(Code::FAILED_PRECONDITION, message));
        }
        match &self.program.exit {
            // It reads first.
            Some(exit) if !self.program.echoes => self.end(exit.clone()),
            _ => {}
        }
        Ok(())
    }

    /// It has ended; the first end counts. Says whether this is it.
    pub(super) fn end(&self, exit: ExitStatus) {
        let ended = self.phase.send_if_modified(|phase| {
            let lives = !matches!(phase, Phase::Ended(_));
            if lives {
                *phase = Phase::Ended(exit);
            }
            lives
        });
        if ended {
            for dependent in lock(&self.dependents).drain(..) {
                if let Some(process) = dependent.upgrade() {
                    process.end(signal_status(Signal::KILL));
                }
            }
        }
    }

    /// A process that ends with this one.
    pub(super) fn depends(&self, process: &Arc<Process>) {
        lock(&self.dependents).push(Arc::downgrade(process));
    }

    pub(super) fn signal(&self, signal: Signal) {
        if self.program.ends_by(signal) {
            self.end(signal_status(signal));
        }
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> ExitStatus {
        let mut phase = self.phase.subscribe();
        let ended = phase.wait_for(|phase| matches!(phase, Phase::Ended(_)));
        match ended.await.as_deref() {
            Ok(Phase::Ended(exit)) => exit.clone(),
            // The sender lives in `self`.
            _ => signal_status(Signal::KILL),
        }
    }

    /// Waits until it runs, or has ended.
    pub(super) async fn started(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives in `self`.
        let _ = phase.wait_for(|phase| *phase != Phase::Waiting).await;
    }

    /// Gives it input. What it does not echo is gone.
    pub(super) async fn read(&self, bytes: &[u8]) {
        let input = lock(&self.input).clone();
        if let Some(input) = input.filter(|_| self.program.echoes) {
            let _ = input.send(bytes.to_vec()).await;
        }
    }

    /// There is no more input.
    pub(super) fn read_all(&self) {
        lock(&self.input).take();
        if self.program.echoes {
            self.end(self.program.exit.clone().unwrap_or(ExitStatus::Code(0)));
        }
    }

    /// What comes out of it besides what its program prints; once.
    pub(super) fn take_output(&self) -> Option<mpsc::Receiver<Vec<u8>>> {
        lock(&self.output).take()
    }
}

fn signal_status(signal: Signal) -> ExitStatus {
    ExitStatus::Signal {
        signal: signal.number(),
        oom: false,
    }
}
