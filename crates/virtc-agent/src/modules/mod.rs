//! Loads the initrd's kernel modules: first those without which nobody reaches the agent, then the
//! rest beside the agent's work, and a few only when a storage needs them. What the kernel itself asks
//! for comes from the [`archive`].

pub(crate) mod archive;
mod manifest;

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::error::{Attempt as _, Error, Result};
use manifest::{Manifest, module_name};

/// Where the image tool puts the list.
const MANIFEST_PATH: &str = "etc/virtc/modules.json";

/// How long a storage waits for a module that is being loaded. One takes some ten milliseconds
/// without acceleration.
const LOAD_LIMIT: Duration = Duration::from_secs(20);

/// The modules of the initrd.
#[derive(Debug, Clone)]
pub(crate) struct Modules {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The initramfs, which has no path any more.
    initramfs: OwnedFd,
    manifest: Manifest,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    loading: HashSet<PathBuf>,
    done: HashSet<PathBuf>,
}

impl Modules {
    /// Reads the list. An initrd without one is for a kernel that has everything built in.
    pub(crate) fn open(initramfs: OwnedFd) -> Result<Self> {
        let manifest = match openat(&initramfs, MANIFEST_PATH, OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => {
                let mut text = Vec::new();
                std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut text)
                    .attempt(|| format!("read /{MANIFEST_PATH}"))?;
                Manifest::parse(&text)?
            }
            Err(Errno::NOENT) => Manifest::default(),
            Err(error) => return Err(error).attempt(|| format!("open /{MANIFEST_PATH}")),
        };
        archive::offer(initramfs.as_fd())?;
        let inner = Inner {
            initramfs,
            manifest,
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Loads what the agent's own transport needs.
    pub(crate) fn load_boot(&self) -> Result<()> {
        self.inner
            .manifest
            .boot
            .iter()
            .try_for_each(|path| self.load(path))
    }

    /// Loads what needs nothing of that, at the same time. One that fails is the error of whoever
    /// needs it.
    pub(crate) fn load_beside(&self) {
        for path in &self.inner.manifest.beside {
            if let Err(error) = self.load(path) {
                tracing::warn!(error = error.chain(), "module");
            }
        }
    }

    /// Loads the rest in a thread of its own, and after that `also`, which somebody will ask for. A
    /// module that fails is the error of whoever needs it, so here it is only logged.
    pub(crate) fn load_background(&self, also: Option<&str>) -> Result<()> {
        let paths = self.rest(also);
        if paths.is_empty() {
            return Ok(());
        }
        let modules = self.clone();
        thread::Builder::new()
            .name("modules".into())
            .spawn(move || modules.load_each(&paths))
            .attempt(|| "start the thread that loads modules".into())?;
        Ok(())
    }

    /// The same in this thread, which may block.
    pub(crate) fn load_all(&self, also: Option<&str>) {
        self.load_each(&self.rest(also));
    }

    /// What is not needed to reach the agent.
    fn rest(&self, also: Option<&str>) -> Vec<PathBuf> {
        let mut paths = self.inner.manifest.background_only();
        let also = also.and_then(|name| self.inner.manifest.needed_for(name));
        paths.extend(also.unwrap_or_default());
        paths
    }

    fn load_each(&self, paths: &[PathBuf]) {
        for path in paths {
            if let Err(error) = self.load(path) {
                tracing::warn!(error = error.chain(), "module");
            }
        }
    }

    /// Returns when the module `name` and what it depends on are in the kernel, or it is not one
    /// of the initrd's. Blocks: for a thread that may.
    pub(crate) fn require(&self, name: &str) -> Result<()> {
        let needed = self.inner.manifest.needed_for(name).unwrap_or_default();
        needed.iter().try_for_each(|path| self.load(path))
    }

    /// Loads one module, or waits until the thread that loads it just now is done.
    fn load(&self, path: &Path) -> Result<()> {
        let deadline = Instant::now() + LOAD_LIMIT;
        let mut state = self
            .inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while state.loading.contains(path) {
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Err(Error::Timeout {
                    what: format!("loading module {}", module_name(path)),
                    limit: LOAD_LIMIT,
                });
            }
            state = self
                .inner
                .changed
                .wait_timeout(state, rest)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if state.done.contains(path) {
            return Ok(());
        }
        state.loading.insert(path.to_owned());
        drop(state);

        let result = self.load_file(path);

        let mut state = self
            .inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.loading.remove(path);
        if result.is_ok() {
            state.done.insert(path.to_owned());
        }
        self.inner.changed.notify_all();
        result
    }

    fn load_file(&self, path: &Path) -> Result<()> {
        let attempt = || format!("load module {}", path.display());
        let relative = path.strip_prefix("/").unwrap_or(path);
        let file = openat(
            &self.inner.initramfs,
            relative,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .attempt(attempt)?;
        match rustix::system::finit_module(&file, &CString::default(), 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).attempt(attempt),
        }
        // Its file is memory that nobody needs any more. If it stays, it stays.
        let _ = unlinkat(&self.inner.initramfs, relative, AtFlags::empty());
        Ok(())
    }
}
