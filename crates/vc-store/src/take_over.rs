//! Taking an operation away from its owner: for `kill` and `delete --force`.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use vc_types::ProcessIdentity;

use crate::error::{Error, Result, io};
use crate::limits::{OPERATION_RETRY, REMOVALS_AWAITED_MAX};
use crate::operation::{Begun, OperationGuard, begin, busy};
use crate::record::Verb;
use crate::sandbox_dir::SandboxDir;

/// What stands in the way.
struct Victim {
    owner: ProcessIdentity,
    generation: u64,
}

/// What came of a look at the operation.
enum Look {
    Begun(Begun),
    /// Somebody removes something, and is let end.
    Removal(Victim),
    /// It is cancelled, and its owner is not gone.
    Cancelled(Victim),
}

impl SandboxDir {
    /// Begins an operation, and takes over the one that somebody else does.
    ///
    /// That one is marked as cancelled, its owner gets SIGTERM, and has the limit `take_over` of
    /// the store to roll back and go. Then it is taken over, whether its owner went or not: what
    /// it would store is refused from now on.
    ///
    /// Where `verb` removes something itself, another removal is let end first, within the same limit:
    /// its caller wants an answer too.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when this process itself does the other one, or when somebody else took
    /// over first; [`Error::NotFound`] when the owner's roll-back removed the sandbox; those of
    /// [`SandboxDir::update`].
    pub fn take_over(&self, verb: Verb) -> Result<OperationGuard> {
        let me = ProcessIdentity::current().map_err(Error::Identity)?;
        let mut awaited = Vec::new();
        loop {
            let look = self.try_update(|record| {
                let generation = record.generation;
                let Some(operation) = &mut record.operation else {
                    return begin(record, verb).map(Look::Begun);
                };
                if operation.owner == me {
                    return Err(busy(self, operation));
                }
                if operation.owner.has_ended() {
                    return begin(record, verb).map(Look::Begun);
                }
                let victim = Victim {
                    owner: operation.owner.clone(),
                    generation,
                };
                let waits = awaited.len() < REMOVALS_AWAITED_MAX && !awaited.contains(&generation);
                if waits && verb.removes() && operation.verb.removes() {
                    return Ok(Look::Removal(victim));
                }
                operation.cancelled = true;
                Ok(Look::Cancelled(victim))
            })?;
            match look {
                Look::Begun(begun) => return Ok(OperationGuard::new(self, verb, begun)),
                Look::Removal(victim) => {
                    self.wait_for(&victim, || {
                        std::thread::sleep(OPERATION_RETRY);
                        victim.owner.has_ended()
                    })?;
                    awaited.push(victim.generation);
                }
                Look::Cancelled(victim) => {
                    self.end_owner(&victim)?;
                    return self.replace_operation(&victim, verb);
                }
            }
        }
    }

    fn end_owner(&self, victim: &Victim) -> Result<()> {
        let pidfd = match victim.owner.open() {
            Ok(Some(pidfd)) => pidfd,
            Ok(None) => return Ok(()),
            // One that cannot be signalled still sees that its operation is cancelled.
            Err(error) => {
                tracing::warn!(sandbox = %self.id(), owner = %victim.owner, %error, "not signalled");
                return self.wait_for(victim, || {
                    std::thread::sleep(OPERATION_RETRY);
                    false
                });
            }
        };
        match pidfd_send_signal(&pidfd, Signal::TERM) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => {
                return Err(io("signal the owner of the operation on", self.path())(
                    errno,
                ));
            }
        }
        self.wait_for(victim, || has_ended(&pidfd, OPERATION_RETRY))
    }

    /// Waits until the owner has ended, or has ended the operation, or the limit has passed.
    fn wait_for(&self, victim: &Victim, owner_ended: impl Fn() -> bool) -> Result<()> {
        let end = Instant::now() + self.limits().take_over;
        while Instant::now() < end {
            if owner_ended() {
                return Ok(());
            }
            let record = self.read()?;
            if record.generation != victim.generation || record.operation.is_none() {
                return Ok(());
            }
        }
        tracing::warn!(sandbox = %self.id(), owner = %victim.owner, "the owner did not go");
        Ok(())
    }

    fn replace_operation(&self, victim: &Victim, verb: Verb) -> Result<OperationGuard> {
        let begun = self.try_update(|record| match &record.operation {
            Some(operation)
                if record.generation != victim.generation && !operation.owner.has_ended() =>
            {
                Err(busy(self, operation))
            }
            _ => begin(record, verb),
        })?;
        Ok(OperationGuard::new(self, verb, begun))
    }
}

fn has_ended(pidfd: impl AsFd, limit: Duration) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    matches!(poll(&mut fds, Some(&limit)), Ok(ready) if ready > 0)
}
