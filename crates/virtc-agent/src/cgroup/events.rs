//! Which container the OOM killer struck, as events.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::Cgroup;
use crate::error::{Attempt as _, Error, Result};

/// Events that wait for a host that does not ask. Older ones say nothing that newer ones do not.
const WAITING_MAX: usize = 64;

/// Watches the containers' counts of killed processes.
#[derive(Debug)]
pub(crate) struct OomEvents {
    inotify: AsyncFd<OwnedFd>,
    watched: Mutex<HashMap<i32, Watched>>,
    sender: mpsc::Sender<String>,
    receiver: tokio::sync::Mutex<mpsc::Receiver<String>>,
}

#[derive(Debug)]
struct Watched {
    container_id: String,
    cgroup: Arc<Cgroup>,
    seen: u64,
}

impl OomEvents {
    /// Begins to watch.
    pub(crate) fn start() -> Result<Arc<Self>> {
        let attempt = || "watch for the OOM killer".to_owned();
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .attempt(attempt)?;
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let events = Arc::new(Self {
            inotify: crate::sys::watch(inotify, Interest::READABLE).attempt(attempt)?,
            watched: Mutex::default(),
            sender,
            receiver: tokio::sync::Mutex::new(receiver),
        });
        tokio::spawn(Arc::clone(&events).run());
        Ok(events)
    }

    /// Watches a container until its cgroup is removed.
    pub(crate) fn watch(&self, container_id: &str, cgroup: &Arc<Cgroup>) -> Result<()> {
        let path = cgroup.path().join("memory.events");
        let watch = inotify::add_watch(self.inotify.get_ref(), &path, inotify::WatchFlags::MODIFY)
            .attempt(|| format!("watch {}", path.display()))?;
        let watched = Watched {
            container_id: container_id.to_owned(),
            cgroup: Arc::clone(cgroup),
            seen: cgroup.oom_kills(),
        };
        self.lock().insert(watch, watched);
        Ok(())
    }

    /// The next container in which a process was killed.
    pub(crate) async fn next(&self) -> Result<String> {
        let container = self.receiver.lock().await.recv().await;
        container.ok_or(Error::State {
            object: "the OOM watch".into(),
            state: "over",
        })
    }

    async fn run(self: Arc<Self>) {
        loop {
            let Ok(mut ready) = self.inotify.readable().await else {
                return;
            };
            self.read_events();
            ready.clear_ready();
        }
    }

    fn read_events(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
        let mut watched = self.lock();
        // It ends with "would block".
        while let Ok(event) = reader.next() {
            if event.events().contains(inotify::ReadFlags::IGNORED) {
                watched.remove(&event.wd());
            } else if let Some(watched) = watched.get_mut(&event.wd()) {
                let kills = watched.cgroup.oom_kills();
                if kills > watched.seen {
                    watched.seen = kills;
                    // A full queue has an event of this kind for sure.
                    let _ = self.sender.try_send(watched.container_id.clone());
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
