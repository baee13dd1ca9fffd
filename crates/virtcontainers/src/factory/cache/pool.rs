//! The machines that wait below a state root: a sandbox each, in a state root of their own that no
//! list of sandboxes shows.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use vc_config::Config;
use vc_store::{Listed, SandboxRecord, Store, StoreLimits, UnixMillis};
use vc_types::SandboxId;

use super::kind::{FORM, Kind};
use super::link::{Facts, Link, refuse};
use crate::error::{Error, Result};
use crate::factory::{Library, TemplateId};

/// The state root of those that wait, below that of the sandboxes. Ids hold no colon.
const DIRECTORY: &str = ".waiting:vms";

/// Held by whoever makes one: there is one maker at a time.
const LOCK: &str = "lock";

/// How often a lock's file may go while it is waited for.
const LOCK_TRIES: usize = 10;

/// What the state of one has its kind by.
pub(crate) const KIND: &str = "io.virtcontainers.waiting.kind";

/// What the state of one has its template by.
pub(crate) const TEMPLATE: &str = "io.virtcontainers.waiting.template";

/// What the state of one has by which version made it.
pub(crate) const FORM_OF: &str = "io.virtcontainers.waiting.form";

/// Set once it can be taken.
pub(crate) const WAITS: &str = "io.virtcontainers.waiting.since";

/// The machines that wait below one state root.
#[derive(Clone, Debug)]
pub struct Pool {
    store: Store,
}

/// A machine that waits, as lists show it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Waiting {
    /// Its name.
    pub id: SandboxId,
    /// What it is.
    pub kind: String,
    /// The template that it went on from; nothing where it booted.
    pub template: Option<TemplateId>,
    /// Since when it can be taken; nothing while it is being made.
    pub since: Option<UnixMillis>,
    /// The memory of the host that it takes, in bytes: what its processes share is counted once.
    pub bytes: u64,
}

/// A machine that was taken, and is still where it waited.
#[derive(Debug)]
pub struct Taken {
    /// The holder's word.
    pub(crate) facts: Facts,
    /// To the holder, which ends the machine when this is dropped.
    pub(crate) link: Link,
    /// Where its files are.
    pub(crate) directory: PathBuf,
}

/// The lock of the makers, given back when dropped.
#[derive(Debug)]
pub(crate) struct MakersLock {
    #[expect(dead_code, reason = "held, not read")]
    file: File,
}

impl Pool {
    /// That of the sandboxes of this configuration. Nothing is made on disk.
    pub fn of(config: &Config) -> Self {
        let limits = StoreLimits {
            lock: config.limits.lock_ms.duration(),
            take_over: config.limits.take_over_ms.duration(),
        };
        Self {
            store: Store::open(Self::root_of(config), limits),
        }
    }

    /// Where they are.
    pub fn root(&self) -> &Path {
        self.store.root()
    }

    /// The state root of those that wait.
    pub(crate) fn root_of(config: &Config) -> PathBuf {
        config.runtime.root.join(DIRECTORY)
    }

    /// All of them, in the order of their names, those that are being made included.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the directory cannot be read. That it is not there is none.
    pub fn list(&self) -> Result<Vec<Waiting>> {
        let living = |record: &SandboxRecord| record.keeper.as_ref().is_some_and(|k| k.is_alive());
        let records = self.records()?;
        let records = records.filter(living);
        Ok(records.map(|record| Waiting::of(&record)).collect())
    }

    fn records(&self) -> Result<impl Iterator<Item = SandboxRecord> + use<'_>> {
        let listed = self.store.each()?;
        Ok(listed.filter_map(|listed| match listed {
            Listed::Sandbox(record) => Some(record),
            Listed::Broken { .. } => None,
        }))
    }

    /// Takes one of this kind: it is the caller's, and nobody else's. Nothing where none waits.
    pub(crate) async fn take(&self, kind: &Kind) -> Option<Taken> {
        let of_kind = |record: &SandboxRecord| {
            record.annotations.get(KIND).map(String::as_str) == Some(kind.as_str())
        };
        let records = match self.records() {
            Ok(records) => records.filter(of_kind),
            Err(error) => {
                tracing::warn!(%error, "no machine that waits can be looked for");
                return None;
            }
        };
        for record in records {
            match self.try_take(&record).await {
                Ok(taken) => return Some(taken),
                // Somebody else's by now, or its holder has ended: there may be another one.
                Err(error) => tracing::debug!(waiting = %record.id(), %error, "not taken"),
            }
        }
        None
    }

    /// Takes this one.
    async fn try_take(&self, record: &SandboxRecord) -> io::Result<Taken> {
        let holder = record.keeper.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let directory = self.store.root().join(record.id());
        let mut link = Link::connect(&directory, holder).await?;
        let facts = link.expect().await?;
        Ok(Taken {
            facts,
            link,
            directory,
        })
    }

    /// Ends one that can be taken, and waits until its holder is gone. Says whether it did: one that was
    /// taken is somebody's, and one that is being made is its maker's.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when its state cannot be read.
    pub fn end(&self, id: &SandboxId) -> Result<bool> {
        let record = match self.store.get(id).and_then(|directory| directory.read()) {
            Ok(record) => record,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Some(holder) = &record.keeper else {
            return Ok(false);
        };
        match refuse(&self.store.root().join(id), holder) {
            Ok(()) => Ok(true),
            Err(error) => {
                tracing::debug!(waiting = %id, %error, "not ended");
                Ok(false)
            }
        }
    }

    /// Ends all that can be taken. What is being made stays.
    ///
    /// # Errors
    ///
    /// Those of [`Pool::end`], and [`Error::System`].
    pub fn end_all(&self) -> Result<()> {
        for waiting in self.list()? {
            self.end(&waiting.id)?;
        }
        self.tidy()
    }

    /// Ends those of other kinds that have waited for the longest time, until fewer than `enough` of all
    /// kinds wait.
    ///
    /// # Errors
    ///
    /// Those of [`Pool::end`].
    pub(crate) fn make_room(&self, kind: &Kind, enough: u32) -> Result<()> {
        let mut all = self.list()?;
        let mut left = all.len();
        all.sort_by_key(|one| one.since);
        for other in all.iter().filter(|one| one.kind != kind.as_str()) {
            if left < enough as usize {
                break;
            }
            left -= usize::from(self.end(&other.id)?);
        }
        Ok(())
    }

    /// Those that can be taken and that nobody will ask for, each with the reason.
    pub(crate) fn unusable(&self, library: &Library) -> Result<Vec<(SandboxId, &'static str)>> {
        let reason = |record: &SandboxRecord| {
            let noted = |key: &str| record.annotations.get(key);
            // One that is being made is not looked at.
            noted(WAITS)?;
            if noted(FORM_OF).map(String::as_str) != Some(FORM) {
                return Some("another version made it");
            }
            let template = noted(TEMPLATE)?.parse().ok()?;
            (!library.has(&template)).then_some("its template is gone")
        };
        let records = self.records()?;
        let found = records.filter_map(|record| Some((record.id().clone(), reason(&record)?)));
        Ok(found.collect())
    }

    /// Removes the directory where nothing waits, and nobody makes anything.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub(crate) fn tidy(&self) -> Result<()> {
        let root = self.store.root();
        if !root.exists() || self.records()?.next().is_some() {
            return Ok(());
        }
        let Some(_lock) = self.lock(false)? else {
            return Ok(());
        };
        let removed = std::fs::remove_file(root.join(LOCK)).and_then(|()| {
            match std::fs::remove_dir(root) {
                // Somebody began just now, or has left something that gc knows of.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                removed => removed,
            }
        });
        removed.map_err(|source| Error::System {
            attempt: format!("remove {}", root.display()),
            source,
        })
    }

    /// Takes the makers' lock; nothing when somebody else has it, unless it is to be waited for.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub(crate) fn lock(&self, wait: bool) -> Result<Option<MakersLock>> {
        let path = self.store.root().join(LOCK);
        let failed = |source: io::Error| Error::System {
            attempt: format!("lock {}", path.display()),
            source,
        };
        for _ in 0..LOCK_TRIES {
            self.store.make()?;
            let mut options = File::options();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(failed)?;
            let operation = match wait {
                true => FlockOperation::LockExclusive,
                false => FlockOperation::NonBlockingLockExclusive,
            };
            match flock(&file, operation) {
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                locked => locked.map_err(|errno| failed(errno.into()))?,
            }
            // Whoever had it before may have removed the file: it is nobody's lock then.
            let own = file.metadata().map_err(failed)?;
            let named = std::fs::metadata(&path);
            if named.is_ok_and(|named| named.ino() == own.ino() && named.dev() == own.dev()) {
                return Ok(Some(MakersLock { file }));
            }
        }
        Ok(None)
    }
}

impl Waiting {
    fn of(record: &SandboxRecord) -> Self {
        let noted = |key: &str| record.annotations.get(key);
        let since = noted(WAITS).and_then(|since| since.parse().ok());
        let processes = record.processes.iter().map(|process| &process.identity);
        let processes = processes.chain(&record.vmm_process).chain(&record.keeper);
        Self {
            id: record.id().clone(),
            kind: noted(KIND).cloned().unwrap_or_default(),
            template: noted(TEMPLATE).and_then(|id| id.parse().ok()),
            since: since.map(UnixMillis),
            bytes: processes.map(|process| memory(process.pid())).sum(),
        }
    }
}

/// The memory that a process takes, its part of what it shares; 0 for one that is gone.
fn memory(pid: i32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let rollup = rollup.unwrap_or_default();
    let kib = rollup.lines().find_map(|line| {
        let rest = line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?;
        rest.trim().parse::<u64>().ok()
    });
    kib.unwrap_or_default() << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_maker_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.runtime.root = root.path().join("state");
        let pool = Pool::of(&config);
        assert!(pool.list().unwrap().is_empty());
        let lock = pool.lock(false).unwrap().unwrap();
        assert!(pool.lock(false).unwrap().is_none());
        drop(lock);
        let lock = pool.lock(true).unwrap();
        pool.tidy().unwrap();
        assert!(pool.root().exists(), "somebody makes one");
        drop(lock);
        pool.tidy().unwrap();
        assert!(!pool.root().exists());
    }

    #[test]
    fn a_process_takes_memory_and_one_that_is_gone_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(memory(own) > 100 << 10);
        assert_eq!(memory(i32::MAX), 0);
    }
}
