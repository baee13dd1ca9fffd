//! Which containers there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_protocol::limits::ID_BYTES_MAX;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Container;
use crate::error::{Error, Result};
use crate::process::Process;

/// Containers of one sandbox. Kubernetes has some hundred pods a node and few containers in each.
const CONTAINERS_MAX: usize = 1024;

/// How long a removal waits for what is under way with its container: as long as a host waits for
/// the making of one.
const UNDER_WAY_LIMIT: Duration = Duration::from_secs(60);

/// The containers by their id.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    entries: Mutex<HashMap<String, Entry>>,
    changed: Notify,
}

#[derive(Debug)]
enum Entry {
    /// Being made, or being removed.
    Reserved,
    Ready(Arc<Container>),
}

/// An id that nobody else can take. Given back when dropped before the container is ready.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    containers: &'a Containers,
    id: String,
}

impl Containers {
    /// A container.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Container>> {
        match self.lock().get(id) {
            Some(Entry::Ready(container)) => Ok(Arc::clone(container)),
            _ => Err(Error::NoContainer(id.to_owned())),
        }
    }

    /// A process of a container.
    pub(crate) fn process(&self, id: &str, exec_id: &str) -> Result<Arc<Process>> {
        self.get(id)?.process(exec_id)
    }

    /// A process that may be made only now: within the limit it is there, or its container is
    /// being made.
    pub(crate) async fn wait_for_process(
        &self,
        id: &str,
        exec_id: &str,
        limit: Duration,
    ) -> Result<Arc<Process>> {
        let deadline = Instant::now() + limit;
        loop {
            let changed = self.changed.notified();
            if let Ok(process) = self.process(id, exec_id) {
                return Ok(process);
            }
            if self.is_reserved(id) {
                // However long it takes to make it: that has limits of its own.
                changed.await;
            } else if timeout_at(deadline, changed).await.is_err() {
                return self.process(id, exec_id);
            }
        }
    }

    fn is_reserved(&self, id: &str) -> bool {
        matches!(self.lock().get(id), Some(Entry::Reserved))
    }

    /// All that are ready.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        let entries = self.lock();
        let ready = entries.values().filter_map(|entry| match entry {
            Entry::Ready(container) => Some(Arc::clone(container)),
            Entry::Reserved => None,
        });
        ready.collect()
    }

    /// Tells whoever waits that there is a process more.
    pub(super) fn announce(&self) {
        self.changed.notify_waiters();
    }

    /// Takes an id for a container that is being made.
    pub(super) fn reserve(&self, id: &str) -> Result<Reservation<'_>> {
        check_id("container id", id)?;
        let mut entries = self.lock();
        if entries.contains_key(id) {
            return Err(Error::Exists(format!("container {id:?}")));
        }
        if entries.len() >= CONTAINERS_MAX {
            return Err(Error::State {
                object: "the sandbox".into(),
                state: "full",
            });
        }
        entries.insert(id.to_owned(), Entry::Reserved);
        Ok(Reservation {
            containers: self,
            id: id.to_owned(),
        })
    }

    /// Takes a container out for its removal. One that is being made is waited for: the host may
    /// have given its creation up, which goes on all the same.
    pub(super) async fn withdraw(&self, id: &str) -> Result<(Arc<Container>, Reservation<'_>)> {
        let deadline = Instant::now() + UNDER_WAY_LIMIT;
        loop {
            let changed = self.changed.notified();
            match self.take_ready(id)? {
                Some(container) => {
                    let id = id.to_owned();
                    let containers = self;
                    return Ok((container, Reservation { containers, id }));
                }
                None => timeout_at(deadline, changed)
                    .await
                    .map_err(|_| Error::State {
                        object: format!("container {id:?}"),
                        state: "being made or removed",
                    })?,
            }
        }
    }

    /// Reserves the id of a container that is ready; nothing while it is not.
    fn take_ready(&self, id: &str) -> Result<Option<Arc<Container>>> {
        let mut entries = self.lock();
        let entry = entries
            .get_mut(id)
            .ok_or_else(|| Error::NoContainer(id.to_owned()))?;
        Ok(match std::mem::replace(entry, Entry::Reserved) {
            Entry::Ready(container) => Some(container),
            Entry::Reserved => None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation<'_> {
    /// The container is ready, or still there after all.
    pub(super) fn fill(self, container: Arc<Container>) {
        self.containers
            .lock()
            .insert(self.id.clone(), Entry::Ready(container));
        self.containers.announce();
        std::mem::forget(self);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.containers.lock().remove(&self.id);
        self.containers.announce();
    }
}

/// Ids are names of files and cgroups.
pub(super) fn check_id(field: &'static str, id: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id.len() > ID_BYTES_MAX || id.starts_with('.') || !id.chars().all(good) {
        return Err(Error::Invalid {
            field,
            value: id.to_owned(),
            reason: "is not a valid id",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_until_it_is_given_back() {
        let containers = Containers::default();
        let reservation = containers.reserve("a").unwrap();
        assert!(matches!(containers.reserve("a"), Err(Error::Exists(_))));
        assert!(matches!(containers.get("a"), Err(Error::NoContainer(_))));
        drop(reservation);
        assert!(containers.reserve("a").is_ok());
    }

    #[tokio::test]
    async fn a_removal_waits_for_a_container_that_is_being_made() {
        let containers = Containers::default();
        let reservation = containers.reserve("a").unwrap();
        let withdrawn = containers.withdraw("a");
        tokio::pin!(withdrawn);
        // It is not taken for removed as long as it may still come.
        let soon = tokio::time::timeout(Duration::from_millis(5), &mut withdrawn).await;
        assert!(soon.is_err());
        drop(reservation);
        assert!(matches!(withdrawn.await, Err(Error::NoContainer(_))));
    }

    #[test]
    fn ids_that_are_no_names_are_refused() {
        for id in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "ä",
            &"x".repeat(ID_BYTES_MAX + 1),
        ] {
            assert!(check_id("id", id).is_err(), "{id:?}");
        }
        assert!(check_id("id", "a.b-c_D+9").is_ok());
    }

    #[tokio::test]
    async fn a_process_that_never_comes_is_an_error_after_the_limit() {
        let containers = Containers::default();
        let result = containers
            .wait_for_process("a", "", Duration::from_millis(1))
            .await;
        assert!(matches!(result, Err(Error::NoContainer(_))));
    }
}
