//! What nobody looks after any more.

use std::time::SystemTime;

use rustix::fs::FlockOperation;
use rustix::fs::{AtFlags, Mode, OFlags, flock, openat, statat};
use vc_types::BootId;

use crate::error::Result;
use crate::limits::CREATING_WITHOUT_LOCK;
use crate::lock::LOCK_FILE;
use crate::record::{SandboxRecord, Verb};
use crate::store::{CREATING, Listed, REMOVING, Store};

/// Something that `gc` removes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
pub enum Stale {
    /// A sandbox; its processes and what else it has go before its directory.
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
            if self.is_abandoned(&name)? {
                found.push(Stale::Leftover { name });
            }
        }
        Ok(found)
    }

    /// Removes a directory that [`Store::stale`] called a leftover. Other names do nothing.
    ///
    /// # Errors
    ///
    /// Those of [`Store::remove`].
    pub fn remove_leftover(&self, name: &str) -> Result<()> {
        let hidden = name.starts_with(REMOVING) || name.starts_with(CREATING);
        if hidden && !name.contains('/') {
            self.remove_hidden(name)
        } else {
            Ok(())
        }
    }

    /// Whether the maker of a directory has ended: it holds the lock until it is done.
    fn is_abandoned(&self, name: &str) -> Result<bool> {
        let Some(root) = self.root_fd()? else {
            return Ok(false);
        };
        let lock = format!("{name}/{LOCK_FILE}");
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(file) = openat(&root, lock, flags, Mode::empty()) {
            return Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        }
        let Ok(stat) = statat(&root, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(false);
        };
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let age = i128::from(now.as_secs()) - i128::from(stat.st_mtime);
        Ok(age > i128::from(CREATING_WITHOUT_LOCK.as_secs()))
    }
}

fn reason(record: &SandboxRecord) -> Option<StaleReason> {
    let lives = |process: Option<&vc_types::ProcessIdentity>| {
        process.is_some_and(vc_types::ProcessIdentity::is_alive)
    };
    let owner = record.operation().map(|operation| &operation.owner);
    if record.keep || lives(owner) || lives(record.keeper.as_ref()) {
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
