use std::time::{Duration, Instant};

use vc_types::ProcessIdentity;

use crate::error::{Error, Result};
use crate::limits::OPERATION_RETRY;
use crate::record::{Operation, SandboxRecord, Verb};
use crate::sandbox_dir::SandboxDir;
use crate::time::UnixMillis;

/// What to do when somebody else does something with the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenBusy {
    /// Say so at once.
    Refuse,
    /// Wait for its end, at most this long.
    Wait(Duration),
}

/// An operation of this process on a sandbox.
///
/// Others see it in the state, with its verb, its owner and its step. It ends with
/// [`OperationGuard::commit`], or when it is dropped: its owner has rolled back then, and the
/// record goes. Only a process that is killed leaves the record, which says what to clean up.
#[derive(Debug)]
pub struct OperationGuard {
    dir: SandboxDir,
    verb: Verb,
    generation: u64,
    interrupted: Option<Operation>,
    committed: bool,
}

impl SandboxDir {
    /// Begins an operation.
    ///
    /// One whose owner has ended does not stand in the way: it is taken over, and
    /// [`OperationGuard::interrupted`] says which it was and how far it came.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when somebody else does something with the sandbox (after the wait, if
    /// `when_busy` says so), and those of [`SandboxDir::update`].
    pub fn begin_operation(&self, verb: Verb, when_busy: WhenBusy) -> Result<OperationGuard> {
        let end = match when_busy {
            WhenBusy::Refuse => Instant::now(),
            WhenBusy::Wait(limit) => Instant::now() + limit,
        };
        loop {
            let begun = self.try_update(|record| match &record.operation {
                Some(operation) if !operation.owner.has_ended() => Err(busy(self, operation)),
                _ => begin(record, verb),
            });
            match begun {
                Err(Error::Busy { .. }) if Instant::now() < end => {
                    std::thread::sleep(OPERATION_RETRY);
                }
                begun => return begun.map(|begun| OperationGuard::new(self, verb, begun)),
            }
        }
    }
}

impl OperationGuard {
    /// The guard of an operation that is stored.
    pub(crate) fn new(dir: &SandboxDir, verb: Verb, begun: Begun) -> Self {
        let Begun {
            generation,
            interrupted,
        } = begun;
        if let Some(other) = &interrupted {
            tracing::warn!(
                sandbox = %dir.id(), verb = %other.verb, owner = %other.owner, step = other.step,
                "an interrupted operation is taken over"
            );
        }
        Self {
            dir: dir.clone(),
            verb,
            generation,
            interrupted,
            committed: false,
        }
    }

    /// The sandbox's directory.
    pub fn sandbox(&self) -> &SandboxDir {
        &self.dir
    }

    /// What it does.
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// The operation that was taken over, if there was one: its roll-back is ours to run.
    pub fn interrupted(&self) -> Option<&Operation> {
        self.interrupted.as_ref()
    }

    /// Notes the step that comes next.
    ///
    /// # Errors
    ///
    /// [`Error::TakenOver`] when somebody wants to take over or has: the owner rolls back. Those
    /// of [`SandboxDir::update`] too.
    pub fn step(&self, step: impl Into<String>) -> Result<()> {
        self.step_with(step, |_| ())
    }

    /// Notes the step that comes next together with what the last one brought, in one write.
    ///
    /// # Errors
    ///
    /// As [`OperationGuard::step`].
    pub fn step_with<T>(
        &self,
        step: impl Into<String>,
        change: impl FnOnce(&mut SandboxRecord) -> T,
    ) -> Result<T> {
        let step = step.into();
        self.update(|record| {
            if let Some(operation) = &mut record.operation {
                operation.step = step;
            }
            change(record)
        })
    }

    /// Changes the state in the middle of the operation.
    ///
    /// # Errors
    ///
    /// As [`OperationGuard::step`].
    pub fn update<T>(&self, change: impl FnOnce(&mut SandboxRecord) -> T) -> Result<T> {
        self.dir.try_update(|record| {
            self.check_record(record)?;
            Ok(change(record))
        })
    }

    /// Whether the operation still is its owner's; nothing is written.
    ///
    /// # Errors
    ///
    /// [`Error::TakenOver`] when it is not, and those of [`SandboxDir::read`].
    pub fn check(&self) -> Result<()> {
        self.check_record(&self.dir.read()?)
    }

    fn check_record(&self, record: &SandboxRecord) -> Result<()> {
        match &record.operation {
            Some(operation) if self.is_of(record) && !operation.cancelled => Ok(()),
            _ => Err(Error::TakenOver {
                id: self.dir.id().clone(),
                verb: self.verb,
            }),
        }
    }

    fn is_of(&self, record: &SandboxRecord) -> bool {
        record.generation == self.generation
    }

    /// Stores the operation's result, and ends it.
    ///
    /// # Errors
    ///
    /// As [`OperationGuard::step`]; the owner rolls back then.
    pub fn commit<T>(mut self, change: impl FnOnce(&mut SandboxRecord) -> T) -> Result<T> {
        let result = self.dir.try_update(|record| {
            self.check_record(record)?;
            record.operation = None;
            Ok::<T, Error>(change(record))
        })?;
        self.committed = true;
        Ok(result)
    }

    fn end(&self) -> Result<()> {
        self.dir.update(|record| {
            if self.is_of(record) {
                record.operation = None;
            }
        })
    }
}

impl Drop for OperationGuard {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        match self.end() {
            // Its roll-back removed the sandbox.
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(
                sandbox = %self.dir.id(), verb = %self.verb, %error,
                "the end of the operation could not be stored"
            ),
        }
    }
}

/// An operation that was put into a record.
///
/// It becomes a guard once the record is stored and its lock is free: a guard that is dropped
/// takes the lock.
pub(crate) struct Begun {
    generation: u64,
    interrupted: Option<Operation>,
}

/// Puts an operation into the record, whatever is there.
pub(crate) fn begin(record: &mut SandboxRecord, verb: Verb) -> Result<Begun> {
    let owner = ProcessIdentity::current().map_err(Error::Identity)?;
    let operation = Operation {
        verb,
        owner,
        step: "begin".to_owned(),
        started: UnixMillis::now(),
        cancelled: false,
    };
    record.generation += 1;
    let interrupted = record.operation.replace(operation);
    Ok(Begun {
        generation: record.generation,
        interrupted,
    })
}

pub(crate) fn busy(dir: &SandboxDir, operation: &Operation) -> Error {
    Error::Busy {
        id: dir.id().clone(),
        verb: operation.verb,
        pid: operation.owner.pid(),
        step: operation.step.clone(),
    }
}
