//! What the tests of the store share.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "what fails in a test fails the test, and not every test uses all"
)]

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::fs::inotify;
use vc_store::{Error, SandboxDir, SandboxRecord, Store, StoreLimits, Verb};
use vc_types::{ProcessIdentity, SandboxId};

/// Limits that a test can wait for.
pub(crate) const LIMITS: StoreLimits = StoreLimits {
    lock: Duration::from_millis(300),
    take_over: Duration::from_millis(500),
};

pub(crate) fn id(text: &str) -> SandboxId {
    text.parse().unwrap()
}

pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path().join("state"), LIMITS);
    (root, store)
}

pub(crate) fn record(name: &str) -> SandboxRecord {
    SandboxRecord::new(id(name)).unwrap()
}

/// A sandbox without an operation.
pub(crate) fn sandbox(store: &Store, name: &str) -> SandboxDir {
    let guard = store.create(record(name), Verb::Create).unwrap();
    let dir = guard.sandbox().clone();
    guard.commit(|_| ()).unwrap();
    dir
}

/// Changes the state file as another program would.
pub(crate) fn edit(dir: &SandboxDir, change: impl FnOnce(&mut serde_json::Value)) {
    let path = dir.path().join("state.json");
    let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    // At once, as whoever reads expects it.
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(&value).unwrap()).unwrap();
    fs::rename(new, path).unwrap();
}

/// Puts another process's operation into the state.
pub(crate) fn operation_of(dir: &SandboxDir, owner: &ProcessIdentity) {
    operation(dir, Verb::Start, owner);
}

/// The same, for any.
pub(crate) fn operation(dir: &SandboxDir, verb: Verb, owner: &ProcessIdentity) {
    edit(dir, |value| {
        value["operation"] = serde_json::json!({
            "verb": verb.name(), "owner": owner, "step": "launch", "started": 1, "cancelled": false,
        });
    });
}

/// Tells of what is done with the lock of a sandbox by whoever takes it.
pub(crate) struct LockWatch(OwnedFd);

impl LockWatch {
    /// From now on: `OPEN` when somebody is about to take it, `CLOSE_WRITE` when it was given back.
    pub(crate) fn of(dir: &SandboxDir, what: inotify::WatchFlags) -> Self {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, dir.path().join("lock"), what).unwrap();
        Self(watch)
    }

    /// Waits for the first time.
    pub(crate) fn wait(&self) {
        let mut buffer = [MaybeUninit::uninit(); 512];
        inotify::Reader::new(&self.0, &mut buffer).next().unwrap();
    }
}

/// The sandbox `a` is `removed` while a change of it waits for its lock, which is free then.
pub(crate) fn change_while_removed(
    store: &Store,
    removed: impl FnOnce(&Path),
) -> Result<(), Error> {
    let dir = sandbox(store, "a");
    let lock = fs::File::open(dir.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let opened = LockWatch::of(&dir, inotify::WatchFlags::OPEN);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| dir.update(|record| record.keep = true));
        opened.wait();
        let hidden = store.root().join(".removing:a:1");
        fs::rename(dir.path(), &hidden).unwrap();
        removed(&hidden);
        drop(lock);
        waiter.join().unwrap()
    })
}

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child, pub(crate) ProcessIdentity);

impl Process {
    /// Starts one that prints a line once it is as it should be.
    pub(crate) fn shell(script: &str) -> Self {
        use std::io::Read;
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let identity = ProcessIdentity::of(child.id().try_into().unwrap()).unwrap();
        Self(child, identity)
    }

    /// One that has ended.
    pub(crate) fn ended() -> ProcessIdentity {
        let process = Self::shell("echo; exec sleep 60");
        process.1.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that a write would change, of all files below a directory.
pub(crate) fn snapshot(dir: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut all = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        all.push(format!(
            "{} {} {} {}.{} {}.{}",
            path.display(),
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec()
        ));
        if meta.is_dir() {
            todo.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    all.sort();
    all
}
