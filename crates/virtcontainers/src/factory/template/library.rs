use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, StatFs, flock};
use rustix::io::Errno;
use vc_config::{Factory as Settings, HostFacts};
use vc_store::UnixMillis;
use vc_types::ByteSize;

use super::error::{Attempt as _, TemplateError, TemplateResult};
use super::id::TemplateId;
use super::room::Wanted;
use super::stored::{DESCRIPTION, Found, MEMORY, SCRATCH, STATE, Stored};

/// Where templates lie when nothing is set: in memory where that is there.
const IN_MEMORY: &str = "/dev/shm";
const IN_MEMORY_NAME: &str = "virtcontainers";
const ON_DISK: &str = "/var/cache/virtcontainers/templates";

/// What a file system in memory has to hold: containers and small machines often have one of 64 MiB, which is no room
/// for a template beside what it is there for.
const IN_MEMORY_BYTES_MIN: u64 = 512 << 20;

/// `f_type` of tmpfs, from linux/magic.h.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Where one is made; there is one maker at a time.
const MAKING: &str = ".virtcontainers-making";

/// Held by whoever makes or removes one.
const LOCK: &str = "lock";

/// The part of the host's memory that all templates may take when nothing is set.
const MEMORY_PART: u64 = 8;

/// A template that no VM has gone on from for so long goes when another one is made: it is of a kernel or a
/// virtc that has been replaced, or nobody needs it.
const UNUSED_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What only the owner can use.
const OWNERS_ALONE: u32 = 0o700;

/// The templates of a host, a directory each.
#[derive(Debug)]
pub struct Library {
    root: PathBuf,
    /// What was set for all of them.
    bytes_max: Option<ByteSize>,
}

/// A template, as lists show it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listed {
    /// Its id.
    pub id: TemplateId,
    /// What it takes.
    pub bytes: u64,
    /// When a VM last went on from it.
    pub used: UnixMillis,
}

/// The lock of the makers, given back when dropped.
#[derive(Debug)]
pub(super) struct MakersLock(File);

impl Library {
    /// The library of these settings. Nothing is made before the first template.
    pub fn open(settings: &Settings) -> Self {
        Self {
            root: settings.dir.clone().unwrap_or_else(default_root),
            bytes_max: settings.max_bytes,
        }
    }

    /// Where they lie.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What all of them may take, in bytes.
    ///
    /// # Errors
    ///
    /// When nothing is set, and the host does not say how much memory it has.
    pub fn bytes_max(&self) -> TemplateResult<u64> {
        Ok(match self.bytes_max {
            Some(set) => set.bytes(),
            None => HostFacts::read()?.memory_total.bytes() / MEMORY_PART,
        })
    }

    /// All templates, in the order of their last use.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read. That it is not there is none.
    pub fn list(&self) -> TemplateResult<Vec<Listed>> {
        let attempt = || format!("list the templates in {}", self.root.display());
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).attempt(attempt),
        };
        let mut listed = Vec::new();
        for entry in entries {
            let name = entry.attempt(attempt)?.file_name();
            let id = name.to_str().and_then(|name| name.parse().ok());
            listed.extend(id.and_then(|id| self.look_at(id)));
        }
        listed.sort_by_key(|template: &Listed| template.used);
        Ok(listed)
    }

    /// Whether there is a template of this id.
    pub fn has(&self, id: &TemplateId) -> bool {
        self.directory(id).join(DESCRIPTION).exists()
    }

    /// One of them, unless it goes just now.
    fn look_at(&self, id: TemplateId) -> Option<Listed> {
        let directory = self.directory(&id);
        let of = |name: &str| fs::metadata(directory.join(name)).ok();
        // What is no hole.
        let bytes = [MEMORY, STATE, SCRATCH, DESCRIPTION];
        let bytes = bytes.map(|name| of(name).map_or(0, |file| file.blocks() * 512));
        Some(Listed {
            id,
            bytes: bytes.iter().sum(),
            used: of(DESCRIPTION)?.modified().ok()?.into(),
        })
    }

    /// The template of this id, which counts as used now. One whose files are not what they have
    /// to be is removed.
    pub(super) fn find(&self, id: &TemplateId) -> TemplateResult<Option<Stored>> {
        let directory = self.directory(id);
        if !self.is_closed()? || !directory.exists() {
            return Ok(None);
        }
        match Stored::open(&directory, id) {
            Ok(Found::Whole(stored)) => {
                let description = directory.join(DESCRIPTION);
                // Whoever removes it just now does not care.
                if let Ok(file) = File::open(&description) {
                    file.set_modified(SystemTime::now())
                        .attempt(|| format!("note the use of {}", description.display()))?;
                }
                Ok(Some(stored))
            }
            Ok(Found::Broken) => {
                tracing::warn!(template = %id, "its files are not whole: it is removed");
                self.remove(id)?;
                Ok(None)
            }
            // Somebody removes it just now.
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a template; VMs that went on from it do not need it. Says whether there was one.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn remove(&self, id: &TemplateId) -> TemplateResult<bool> {
        let directory = self.directory(id);
        // In this order: without its description it is none.
        let files = [DESCRIPTION, STATE, SCRATCH, MEMORY].map(|name| directory.join(name));
        let mut there = false;
        for file in files {
            there |= removed(fs::remove_file(&file), &file)?;
        }
        there |= removed(fs::remove_dir(&directory), &directory)?;
        Ok(there)
    }

    fn directory(&self, id: &TemplateId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// Whether the library's directory is there. One that others can change is an error.
    fn is_closed(&self) -> TemplateResult<bool> {
        let found = match fs::symlink_metadata(&self.root) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => {
                return Err(error).attempt(|| format!("look at {}", self.root.display()));
            }
        };
        let own = found.uid() == rustix::process::geteuid().as_raw();
        let closed = found.permissions().mode() & 0o777 & !OWNERS_ALONE == 0;
        match found.is_dir() && own && closed {
            true => Ok(true),
            false => Err(TemplateError::Open {
                path: self.root.clone(),
            }),
        }
    }

    /// Takes the makers' lock; nothing when somebody else has it.
    pub(super) fn try_lock(&self) -> TemplateResult<Option<MakersLock>> {
        if !self.is_closed()? {
            if let Some(parent) = self.root.parent() {
                let made = fs::create_dir_all(parent);
                made.attempt(|| format!("make {}", parent.display()))?;
            }
            match DirBuilder::new().mode(OWNERS_ALONE).create(&self.root) {
                // Another one did just now.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => made.attempt(|| format!("make {}", self.root.display()))?,
            }
            self.is_closed()?;
        }
        let path = self.root.join(LOCK);
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(&path);
        let file = file.attempt(|| format!("open {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(MakersLock(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).attempt(|| format!("lock {}", path.display())),
        }
    }

    /// An empty directory for the template that the holder of the lock makes. What a maker that
    /// was killed left in it is gone.
    pub(super) fn begin(&self, lock: &MakersLock, wanted: Wanted) -> TemplateResult<PathBuf> {
        let making = self.root.join(MAKING);
        self.sweep(lock)?;
        self.remove_unused(UnixMillis::now())?;
        self.make_room(wanted.bytes())?;
        let made = DirBuilder::new().mode(OWNERS_ALONE).create(&making);
        made.attempt(|| format!("make {}", making.display()))?;
        Ok(making)
    }

    /// Removes what is no whole template: what a maker or a remover that was killed has left.
    fn sweep(&self, _lock: &MakersLock) -> TemplateResult<()> {
        let attempt = || format!("look at {}", self.root.display());
        for entry in fs::read_dir(&self.root).attempt(attempt)? {
            let entry = entry.attempt(attempt)?;
            let (name, path) = (entry.file_name(), entry.path());
            let making = name == MAKING;
            let is_id = |name: &str| name.parse::<TemplateId>().is_ok();
            // The directory may have been somebody's before: what has another name is theirs.
            let ours = making || name.to_str().is_some_and(is_id);
            // One that is being made can have its description already.
            let whole = !making && path.join(DESCRIPTION).exists();
            if ours && !whole && entry.file_type().attempt(attempt)?.is_dir() {
                self.clear(&path)?;
            }
        }
        Ok(())
    }

    fn remove_unused(&self, now: UnixMillis) -> TemplateResult<()> {
        let limit = u64::try_from(UNUSED_MAX.as_millis()).unwrap_or(u64::MAX);
        for template in self.list()? {
            if now.0.saturating_sub(template.used.0) > limit {
                self.remove(&template.id)?;
            }
        }
        Ok(())
    }

    /// Removes all templates, and what is left of others. One that is being made stays.
    ///
    /// # Errors
    ///
    /// When something cannot be removed.
    pub fn remove_all(&self) -> TemplateResult<()> {
        for template in self.list()? {
            self.remove(&template.id)?;
        }
        if self.is_closed()?
            && let Some(lock) = self.try_lock()?
        {
            self.sweep(&lock)?;
        }
        Ok(())
    }

    /// Removes the directory of one that is being made.
    pub(super) fn clear(&self, making: &Path) -> TemplateResult<()> {
        removed(fs::remove_dir_all(making), making).map(drop)
    }

    /// Puts what was made into its place.
    pub(super) fn finish(&self, making: &Path, id: &TemplateId) -> TemplateResult<()> {
        let place = self.directory(id);
        fs::rename(making, &place).attempt(|| format!("put template {id} into its place"))
    }

    /// Removes those that were not used for the longest time, until one more has room.
    fn make_room(&self, wanted: u64) -> TemplateResult<()> {
        let no_room = |what, room| TemplateError::NoRoom {
            wanted: ByteSize::from_bytes(wanted),
            what,
            room: ByteSize::from_bytes(room),
        };
        let bytes_max = self.bytes_max()?;
        if wanted > bytes_max {
            return Err(no_room("factory.max_bytes is", bytes_max));
        }
        // Twice: the guest that is saved has its memory too, and so has the clone.
        let available = HostFacts::read()?.memory_available.bytes();
        if available < 2 * wanted {
            return Err(no_room("the host's memory has", available));
        }
        let listed = self.list()?;
        let mut taken: u64 = listed.iter().map(|template| template.bytes).sum();
        for template in listed {
            if taken + wanted <= bytes_max {
                break;
            }
            self.remove(&template.id)?;
            taken = taken.saturating_sub(template.bytes);
        }
        let system = rustix::fs::statvfs(&self.root)
            .attempt(|| format!("look at the room in {}", self.root.display()))?;
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        match free < wanted {
            true => Err(no_room("the file system has", free)),
            false => Ok(()),
        }
    }
}

impl Drop for MakersLock {
    fn drop(&mut self) {
        // Closing the file gives it back too.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

fn default_root() -> PathBuf {
    let in_memory = rustix::fs::statfs(IN_MEMORY).is_ok_and(|found| is_room_in_memory(&found));
    let path = Path::new(IN_MEMORY).join(IN_MEMORY_NAME);
    // Anybody can make it there; where it is somebody else's, ours is elsewhere.
    let taken = fs::symlink_metadata(&path)
        .is_ok_and(|found| found.uid() != rustix::process::geteuid().as_raw());
    match in_memory && !taken {
        true => path,
        false => ON_DISK.into(),
    }
}

/// Whether a file system is in memory, and large enough. What is free of it at the moment does not count: the place
/// stays the same.
fn is_room_in_memory(found: &StatFs) -> bool {
    let block = u64::try_from(found.f_bsize).unwrap_or_default();
    found.f_type == TMPFS_MAGIC && found.f_blocks.saturating_mul(block) >= IN_MEMORY_BYTES_MIN
}

/// Whether something was there to be removed.
fn removed(result: std::io::Result<()>, path: &Path) -> TemplateResult<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).attempt(|| format!("remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn library(bytes_max: u64) -> (TempDir, Library) {
        let dir = tempfile::tempdir().unwrap();
        let library = Library {
            root: dir.path().join("templates"),
            bytes_max: Some(ByteSize::from_bytes(bytes_max)),
        };
        (dir, library)
    }

    fn id(number: u8) -> TemplateId {
        TemplateId::of(&number.to_string())
    }

    /// A template of so many bytes, used so long ago.
    fn add(library: &Library, number: u8, bytes: u64, used: Duration) {
        let directory = library.directory(&id(number));
        fs::create_dir(&directory).unwrap();
        let size = usize::try_from(bytes).unwrap();
        fs::write(directory.join(MEMORY), vec![1; size]).unwrap();
        let description = File::create(directory.join(DESCRIPTION)).unwrap();
        description.set_modified(SystemTime::now() - used).unwrap();
    }

    /// Those that there are, in the order of their last use.
    fn ids(library: &Library) -> Vec<TemplateId> {
        let listed = library.list().unwrap();
        listed.into_iter().map(|one| one.id).collect()
    }

    fn wanted(bytes: u64) -> Wanted {
        Wanted {
            memory: ByteSize::from_bytes(bytes),
            scratch: None,
        }
    }

    #[test]
    fn what_is_no_template_is_nobodys_to_remove() {
        let (_dir, library) = library(64 * MIB);
        drop(library.try_lock().unwrap().unwrap());
        let broken = library.directory(&id(1));
        let making = library.root.join(MAKING);
        let elsewhere = tempfile::tempdir().unwrap();
        for left in [&broken, &making, &library.root.join("letters")] {
            fs::create_dir(left).unwrap();
            fs::write(left.join("file"), "a").unwrap();
        }
        fs::write(elsewhere.path().join("file"), "a").unwrap();
        let link = library.directory(&id(2));
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        library.remove_all().unwrap();
        assert!(!broken.exists() && !making.exists());
        assert!(library.root.join("letters/file").exists());
        assert!(link.is_symlink() && elsewhere.path().join("file").exists());
    }

    #[test]
    fn those_that_were_not_used_for_the_longest_make_room() {
        // What one takes and may take is more than its memory.
        let one = wanted(4 * MIB).bytes();
        let (_dir, library) = library(one + 9 * MIB);
        let lock = library.try_lock().unwrap().unwrap();
        for (number, minutes) in [(1, 10), (2, 30), (3, 20)] {
            add(&library, number, 4 * MIB, Duration::from_secs(60 * minutes));
        }
        library.begin(&lock, wanted(4 * MIB)).unwrap();
        assert_eq!(ids(&library), [id(3), id(1)]);
        let too_much = library.begin(&lock, wanted(1 << 40));
        assert!(matches!(too_much, Err(TemplateError::NoRoom { .. })));
    }

    #[test]
    fn one_that_nobody_needs_goes_when_another_one_is_made() {
        let (_dir, library) = library(1024 * MIB);
        let lock = library.try_lock().unwrap().unwrap();
        let hour = Duration::from_secs(60 * 60);
        add(&library, 1, MIB, UNUSED_MAX + hour);
        add(&library, 2, MIB, UNUSED_MAX - hour);
        library.begin(&lock, wanted(MIB)).unwrap();
        assert_eq!(ids(&library), [id(2)]);
    }

    #[test]
    fn a_part_of_the_hosts_memory_is_the_limit_where_none_is_set() {
        let library = Library {
            bytes_max: None,
            ..library(0).1
        };
        let total = HostFacts::read().unwrap().memory_total.bytes();
        assert_eq!(library.bytes_max().unwrap(), total / 8);
    }

    #[test]
    fn a_small_file_system_in_memory_and_one_on_disk_are_no_place() {
        let mut found = rustix::fs::statfs("/proc").unwrap();
        found.f_bsize = 4096;
        for (kind, mib, is_room) in [
            (TMPFS_MAGIC, 64, false),
            (TMPFS_MAGIC, 512, true),
            (0xef53, 4096, false),
        ] {
            found.f_type = kind;
            found.f_blocks = mib * MIB / 4096;
            assert_eq!(is_room_in_memory(&found), is_room, "{kind:#x} {mib}");
        }
    }
}
