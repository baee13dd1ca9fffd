//! What nobody looks after any more.

use std::os::fd::OwnedFd;
use std::time::SystemTime;

use rustix::fs::FlockOperation;
use rustix::fs::{AtFlags, Mode, OFlags, flock, openat, statat};
use rustix::io::Errno;
use vc_types::{BootId, ProcessIdentity};

use crate::error::Result;
use crate::limits::CREATING_WITHOUT_LOCK;
use crate::lock::LOCK_FILE;
use crate::operation::{OperationGuard, begin};
use crate::record::{SandboxRecord, Verb};
use crate::sandbox_dir::SandboxDir;
use crate::store::{CREATING, Listed, REMOVING, Store};

/// Something that `gc` removes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
pub enum Stale {
    /// A sandbox; its processes and what else it has go before its directory. It may be another
    /// one's by now: [`SandboxDir::begin_gc`] asks again.
    Sandbox {
        /// Its state.
        record: SandboxRecord,
        /// Why nobody looks after it.
        reason: StaleReason,
    },
    /// A directory that somebody began to make or to remove, see [`Store::remove_leftover`].
    Leftover {
        /// Its name in the root.
        name: String,
    },
}

/// Why nobody looks after a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaleReason {
    /// The host was booted again.
    Rebooted,
    /// The owner of its operation ended.
    Interrupted {
        /// What was done.
        verb: Verb,
        /// How far it came.
        step: String,
    },
    /// Its keeper ended.
    KeeperEnded,
    /// A throw-away VM that ended, and whose directory stayed.
    Ended,
}

impl Store {
    /// Finds what nobody looks after any more; nothing is changed.
    ///
    /// What is kept on purpose is not, and neither is a sandbox with a broken state: nobody knows
    /// whether it runs.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] when the root cannot be read.
    pub fn stale(&self) -> Result<Vec<Stale>> {
        let mut found = Vec::new();
        for listed in self.list()? {
            if let Listed::Sandbox(record) = listed
                && let Some(reason) = reason(&record)
            {
                found.push(Stale::Sandbox { record, reason });
            }
        }
        for name in self.hidden(REMOVING)? {
            found.push(Stale::Leftover { name });
        }
        for name in self.hidden(CREATING)? {
            if self.abandoned(&name)?.is_some() {
                found.push(Stale::Leftover { name });
            }
        }
        Ok(found)
    }

    /// Removes a directory that [`Store::stale`] called a leftover, unless somebody is at it
    /// again. Other names do nothing.
    ///
    /// # Errors
    ///
    /// Those of [`Store::remove`].
    pub fn remove_leftover(&self, name: &str) -> Result<()> {
        if name.contains('/') {
            return Ok(());
        }
        if name.starts_with(REMOVING) {
            return self.remove_hidden(name);
        }
        if name.starts_with(CREATING)
            && let Some(_lock) = self.abandoned(name)?
        {
            return self.remove_hidden(name);
        }
        Ok(())
    }

    /// The lock of a directory whose maker has ended: it holds the lock until it is done.
    ///
    /// A young one is not asked: its maker may be about to take the lock, and would not get it.
    fn abandoned(&self, name: &str) -> Result<Option<Abandoned>> {
        let Some(root) = self.root_fd()? else {
            return Ok(None);
        };
        let Ok(stat) = statat(&root, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(None);
        };
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let age = i128::from(now.as_secs()) - i128::from(stat.st_mtime);
        if age <= i128::from(CREATING_WITHOUT_LOCK.as_secs()) {
            return Ok(None);
        }
        let lock = format!("{name}/{LOCK_FILE}");
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(match openat(&root, lock, flags, Mode::empty()) {
            Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive)
                .is_ok()
                .then(|| Abandoned(Some(file))),
            Err(Errno::NOENT) => Some(Abandoned(None)),
            Err(_) => None,
        })
    }
}

/// The lock of a directory that nobody makes any more, as far as it came to have one.
struct Abandoned(#[expect(dead_code, reason = "held, not read")] Option<OwnedFd>);

impl SandboxDir {
    /// Begins the removal of a sandbox that nobody looks after, and says why nobody does.
    ///
    /// Whether that is so is asked with the lock held. Where somebody looks after it, the state
    /// is left as it is, and nothing is returned.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NotFound`] when somebody else removed it, and those of
    /// [`SandboxDir::update`].
    pub fn begin_gc(&self) -> Result<Option<(OperationGuard, StaleReason)>> {
        let begun = self.try_update(|record| match reason(record) {
            Some(reason) => begin(record, Verb::Gc).map(|begun| Some((begun, reason))),
            None => Ok(None),
        })?;
        Ok(begun.map(|(begun, reason)| (OperationGuard::new(self, Verb::Gc, begun), reason)))
    }
}

fn reason(record: &SandboxRecord) -> Option<StaleReason> {
    // One of which nothing is known may live.
    let may_live = |process: Option<&ProcessIdentity>| process.is_some_and(|one| !one.has_ended());
    let owner = record.operation().map(|operation| &operation.owner);
    if record.keep || may_live(owner) || may_live(record.keeper.as_ref()) {
        return None;
    }
    if BootId::current().is_ok_and(|current| current != record.boot_id) {
        return Some(StaleReason::Rebooted);
    }
    if let Some(operation) = record.operation() {
        let (verb, step) = (operation.verb, operation.step.clone());
        return Some(StaleReason::Interrupted { verb, step });
    }
    if record.keeper.is_some() {
        return Some(StaleReason::KeeperEnded);
    }
    record.throwaway.then_some(StaleReason::Ended)
}
