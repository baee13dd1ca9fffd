use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, mkdirat, openat};
use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;
use vc_types::SandboxId;

use crate::error::{Error, Result, Unreadable, io as io_error};
use crate::limits::{HIDDEN_NAME_TRIES, StoreLimits};
use crate::lock::lock_new;
use crate::operation::{OperationGuard, begin};
use crate::record::{SandboxRecord, Verb};
use crate::remove::remove_tree;
use crate::replace::HostDisk;
use crate::sandbox_dir::{STATE_FILE, SandboxDir, read};

/// Names that begin so are directories that are being made. Ids hold no colon.
pub(crate) const CREATING: &str = ".creating:";

/// Names that begin so are directories that are being removed.
pub(crate) const REMOVING: &str = ".removing:";

/// The states of all sandboxes of one root.
///
/// ```
/// use vc_store::{SandboxRecord, Store, StoreLimits, Verb};
///
/// let root = tempfile::tempdir()?;
/// let store = Store::open(root.path(), StoreLimits::default());
/// let record = SandboxRecord::new("web-1".parse()?)?;
/// let creation = store.create(record, Verb::Create)?;
/// creation.step("launch")?;
/// creation.commit(|record| record.throwaway = true)?;
/// assert_eq!(store.list()?.len(), 1);
/// assert!(store.get(&"web-1".parse()?)?.read()?.throwaway);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    limits: StoreLimits,
}

/// What [`Store::list`] found under one id.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
pub enum Listed {
    /// A sandbox.
    Sandbox(SandboxRecord),
    /// A sandbox whose state cannot be used.
    Broken {
        /// Its id.
        id: SandboxId,
        /// The state file.
        path: PathBuf,
        /// Why.
        error: Unreadable,
    },
}

impl Listed {
    /// The sandbox's id.
    pub fn id(&self) -> &SandboxId {
        match self {
            Self::Sandbox(record) => record.id(),
            Self::Broken { id, .. } => id,
        }
    }
}

impl Store {
    /// The store below `root`; nothing is read or made yet.
    pub fn open(root: impl Into<PathBuf>, limits: StoreLimits) -> Self {
        Self {
            root: root.into(),
            limits,
        }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the root, unless it is there.
    ///
    /// # Errors
    ///
    /// [`Error::UnsafeRoot`] when others could change the states, [`Error::Io`].
    pub fn make(&self) -> Result<()> {
        self.make_root().map(drop)
    }

    /// Makes a sandbox's directory with its state in it, and begins the operation that makes the
    /// rest.
    ///
    /// The directory appears at once with everything in it: it is made under a hidden name and
    /// renamed, and the rename decides between two that make the same id.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when there is such a sandbox, [`Error::UnsafeRoot`] when others could
    /// change the states, [`Error::Io`] when a directory or file cannot be made. Nothing is left
    /// then.
    pub fn create(&self, record: SandboxRecord, verb: Verb) -> Result<OperationGuard> {
        let id = record.id().clone();
        let root = self.make_root()?;
        if rustix::fs::statat(&root, id.as_str(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(Error::Exists { id });
        }
        let name = self.make_hidden(&root, CREATING, &id)?;
        let made = self.fill(root, &name, record, verb);
        if made.is_err() {
            // The error that is reported is the first one; what stays is found by gc.
            if let Ok(Some(root)) = self.root_fd() {
                let _ = remove_tree(&root, &name, &self.root);
            }
        }
        made
    }

    fn fill(
        &self,
        root: OwnedFd,
        name: &str,
        mut record: SandboxRecord,
        verb: Verb,
    ) -> Result<OperationGuard> {
        let id = record.id().clone();
        let dir = SandboxDir::open(root, &self.root, name, &id, self.limits)?;
        // Held until the directory has its name: gc leaves alone what is locked.
        let _lock = lock_new(&dir, &self.root.join(name))?;
        let begun = begin(&mut record, verb)?;
        dir.write(&HostDisk, &record)?;
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(dir.root(), name, dir.root(), id.as_str(), flags) {
            Ok(()) => Ok(OperationGuard::new(&dir, verb, begun)),
            Err(Errno::EXIST) => Err(Error::Exists { id }),
            Err(errno) => Err(io_error("rename", self.root.join(name))(errno)),
        }
    }

    /// Finds a sandbox's directory; its state may be broken.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is none, [`Error::UnsafeRoot`] when others could change the
    /// states.
    pub fn get(&self, id: &SandboxId) -> Result<SandboxDir> {
        match self.root_fd()? {
            Some(root) => SandboxDir::open(root, &self.root, id.as_str(), id, self.limits),
            None => Err(Error::NotFound { id: id.clone() }),
        }
    }

    /// Reads the state of every sandbox, in the order of their ids, without any lock.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the root cannot be read, [`Error::UnsafeRoot`] when others could change
    /// the states. A root that is not there has no sandboxes.
    pub fn list(&self) -> Result<Vec<Listed>> {
        Ok(self.each()?.collect())
    }

    /// The same one after the other, for those who keep only a part of each: a thousand states
    /// take tens of megabytes.
    ///
    /// # Errors
    ///
    /// Those of [`Store::list`].
    pub fn each(&self) -> Result<impl Iterator<Item = Listed> + use<'_>> {
        let root = self.root_fd()?;
        let names = root.as_ref().map(|root| self.names(root)).transpose()?;
        let names = names.unwrap_or_default().into_iter();
        // Everything else there is not a sandbox: an id holds no colon.
        let mut ids: Vec<_> = names.filter_map(|name| SandboxId::new(name).ok()).collect();
        ids.sort();
        let listed = ids.into_iter().filter_map(move |id| {
            let root = root.as_ref()?;
            match read(root, &format!("{id}/{STATE_FILE}"), &id) {
                Ok(record) => Some(Listed::Sandbox(record)),
                // It was removed since the directory was read.
                Err(_) if self.get(&id).is_err_and(|error| error.is_not_found()) => None,
                Err(error) => {
                    let path = self.root.join(&id).join(STATE_FILE);
                    Some(Listed::Broken { id, path, error })
                }
            }
        });
        Ok(listed)
    }

    /// Removes a sandbox's directory with everything in it, whatever its state says.
    ///
    /// It is renamed first, so that it is gone at once; then it is removed, without following
    /// links and without entering what is mounted in it. Whether it was there is returned; what
    /// an earlier removal left is removed too.
    ///
    /// # Errors
    ///
    /// [`Error::Mounted`] or [`Error::Io`] when something could not be removed; the rest is.
    pub fn remove(&self, id: &SandboxId) -> Result<bool> {
        match self.get(id) {
            Ok(dir) => self.remove_dir(&dir),
            Err(Error::NotFound { .. }) => self.remove_remains(id).map(|()| false),
            Err(error) => Err(error),
        }
    }

    /// Removes the directory that is held open as [`Store::remove`] does, but nothing when it is
    /// gone, even when another sandbox has its name by now.
    ///
    /// # Errors
    ///
    /// Those of [`Store::remove`].
    pub fn remove_dir(&self, dir: &SandboxDir) -> Result<bool> {
        // A change that is being written ends first. One that does not end stops nobody.
        let hidden = match &dir.lock() {
            // Somebody else was faster.
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => {
                tracing::warn!(sandbox = %dir.id(), %error, "removed without its lock");
                self.hide(dir)
            }
            Ok(_) => self.hide(dir),
        }?;
        self.remove_remains(dir.id()).map(|()| hidden)
    }

    /// Removes a sandbox's directory as the end of an operation on it.
    ///
    /// # Errors
    ///
    /// [`Error::TakenOver`] when somebody else took the operation over, [`Error::NotFound`] when
    /// somebody else removed the directory, and those of [`Store::remove`].
    pub fn remove_by(&self, operation: OperationGuard) -> Result<()> {
        operation.check()?;
        // The guard goes after the directory: until then others see who removes it.
        self.remove_dir(operation.sandbox()).map(drop)
    }

    /// Gives the directory a hidden name, unless its name is not its own any more.
    fn hide(&self, dir: &SandboxDir) -> Result<bool> {
        let id = dir.id();
        for attempt in 0..HIDDEN_NAME_TRIES {
            if !dir.is_current() {
                return Ok(false);
            }
            let name = hidden_name(REMOVING, id, attempt);
            let flags = RenameFlags::NOREPLACE;
            match renameat_with(dir.root(), id.as_str(), dir.root(), &name, flags) {
                Ok(()) => return Ok(true),
                Err(Errno::NOENT) => return Ok(false),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(io_error("rename", dir.path())(errno)),
            }
        }
        Err(io_error("rename", dir.path())(Errno::EXIST))
    }

    /// Removes what removals of a sandbox have left under hidden names.
    fn remove_remains(&self, id: &SandboxId) -> Result<()> {
        let mut result = Ok(());
        for name in self.hidden(REMOVING)? {
            let of_it = |rest: &str| {
                rest.split_once(':')
                    .is_some_and(|(of, _)| of == id.as_str())
            };
            if name.strip_prefix(REMOVING).is_some_and(of_it) {
                result = self.remove_hidden(&name).and(result);
            }
        }
        result
    }

    /// Removes a hidden directory by its name.
    pub(crate) fn remove_hidden(&self, name: &str) -> Result<()> {
        match self.root_fd()? {
            Some(root) => remove_tree(&root, name, &self.root),
            None => Ok(()),
        }
    }

    /// The hidden directories whose names begin with `prefix`.
    pub(crate) fn hidden(&self, prefix: &str) -> Result<Vec<String>> {
        let Some(root) = self.root_fd()? else {
            return Ok(Vec::new());
        };
        let mut names = self.names(&root)?;
        names.retain(|name| name.starts_with(prefix));
        Ok(names)
    }

    fn make_hidden(&self, root: &OwnedFd, prefix: &str, id: &SandboxId) -> Result<String> {
        for attempt in 0..HIDDEN_NAME_TRIES {
            let name = hidden_name(prefix, id, attempt);
            match mkdirat(root, &name, Mode::RWXU) {
                Ok(()) => return Ok(name),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(io_error("make", self.root.join(name))(errno)),
            }
        }
        Err(io_error("make", self.root.join(id))(Errno::EXIST))
    }

    /// The names of the directories in the root.
    fn names(&self, root: &OwnedFd) -> Result<Vec<String>> {
        let failed = || io_error("read", &self.root);
        let mut names = Vec::new();
        for entry in Dir::read_from(root).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let is_dir = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
            if let (true, Ok(name)) = (is_dir, entry.file_name().to_str()) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// The root, where it is there. Whoever may write to it may have made up every state in it,
    /// so nothing is read from one that is not safe from others.
    pub(crate) fn root_fd(&self) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = match openat(CWD, &self.root, flags, Mode::empty()) {
            Ok(root) => root,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(io_error("open", &self.root)(errno)),
        };
        let stat = fstat(&root).map_err(io_error("read", &self.root))?;
        let unsafe_root = |reason| Error::UnsafeRoot {
            path: self.root.clone(),
            reason,
        };
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(unsafe_root("it belongs to another user"));
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(unsafe_root("others may write to it"));
        }
        Ok(Some(root))
    }

    /// The root, made where it is missing.
    fn make_root(&self) -> Result<OwnedFd> {
        use std::os::unix::fs::DirBuilderExt;
        if let Some(root) = self.root_fd()? {
            return Ok(root);
        }
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(&self.root)
            .map_err(io_error::<io::Error>("make", &self.root))?;
        self.root_fd()?
            .ok_or_else(|| io_error("open", &self.root)(Errno::NOENT))
    }
}

fn hidden_name(prefix: &str, id: &SandboxId, attempt: u32) -> String {
    let pid = std::process::id();
    format!(
        "{prefix}{id}:{pid}-{:x}-{attempt}",
        vc_types::Timeline::now()
    )
}
