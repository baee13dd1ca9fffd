//! Removing the directories of a cgroup.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use rustix::io::Errno;

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::{Error, Remaining, Result};
use crate::limits::REMOVE_LIMIT;
use crate::members::{pids_below, wait_for_one};
use crate::place::Place;

impl Cgroup {
    /// Removes its directories as far as they are ours, from the bottom up, and says which parents
    /// stay because other cgroups are in them. That some or all are gone already is fine.
    ///
    /// Empty cgroups below it go too: it was ours, so nobody else has anything there. For
    /// processes that are ending it waits, at most [`REMOVE_LIMIT`] in all.
    ///
    /// # Errors
    ///
    /// [`Error::Remains`] with every directory of it that stays, and why.
    pub fn remove(&self) -> Result<Vec<PathBuf>> {
        let deadline = Instant::now() + REMOVE_LIMIT;
        self.remove_each(|place| place.remove(deadline))
    }

    /// Removes its directories where they are ours, if it has neither a process nor a cgroup below
    /// it. Says whether it had none: else nothing is removed where all its hierarchies have the same
    /// processes. It asks much less of the kernel than looking for processes first.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the kernel refuses, and [`Error::Remains`] with every parent of it that
    /// stays, and why.
    pub fn remove_unused(&self) -> Result<bool> {
        for place in self.places.iter().filter(|place| place.is_ours()) {
            match place.remove_at(place.depth()) {
                Ok(()) => {}
                Err(error) if is_busy(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.remove_each(Place::remove_parents).map(|_| true)
    }

    /// Removes something in each hierarchy, and gives the parents that others use.
    fn remove_each(
        &self,
        remove: impl Fn(&Place) -> Result<Option<PathBuf>, Remaining>,
    ) -> Result<Vec<PathBuf>> {
        let mut remaining = Vec::new();
        let mut in_use = Vec::new();
        for place in &self.places {
            match remove(place) {
                Ok(parent) => in_use.extend(parent),
                Err(stays) => remaining.push(stays),
            }
        }
        if remaining.is_empty() {
            return Ok(in_use);
        }
        Err(Error::Remains {
            path: self.path.to_string(),
            remaining,
        })
    }
}

impl Place {
    /// Removes what is ours without waiting for any process.
    pub(crate) fn remove_directories(&self) -> Result<(), Remaining> {
        self.remove(Instant::now()).map(|_| ())
    }

    /// Removes what is ours; gives the parent that others use.
    fn remove(&self, deadline: Instant) -> Result<Option<PathBuf>, Remaining> {
        if self.is_ours() {
            self.remove_leaf(deadline)?;
        }
        self.remove_parents()
    }

    /// Removes the parents that are ours, or that another cgroup of ours has made which could not remove
    /// them because of this one; gives the one that others use.
    fn remove_parents(&self) -> Result<Option<PathBuf>, Remaining> {
        for depth in (1..self.depth()).rev() {
            let parent = || self.open(depth).ok().flatten();
            if !self.made.contains(&depth) && !parent().is_some_and(|dir| dir.is_marked()) {
                break;
            }
            match self.remove_at(depth) {
                Ok(()) => {}
                Err(error) if is_busy(&error) => return Ok(Some(self.directory(depth))),
                Err(error) => return Err(self.remaining(depth, error)),
            }
        }
        Ok(None)
    }

    /// Removes the cgroup itself and what is below it.
    fn remove_leaf(&self, deadline: Instant) -> Result<(), Remaining> {
        let leaf = self.depth();
        loop {
            match self.remove_below().and_then(|()| self.remove_at(leaf)) {
                Ok(()) => return Ok(()),
                Err(error) if is_busy(&error) && Instant::now() < deadline => {}
                Err(error) => return Err(self.remaining(leaf, error)),
            }
            self.pids()
                .and_then(|pids| wait_for_one(&pids, deadline))
                .map_err(|error| self.remaining(leaf, error))?;
        }
    }

    fn remove_below(&self) -> Result<()> {
        let Some(leaf) = self.leaf()? else {
            return Ok(());
        };
        leaf.descend(&mut |parent, name, child| {
            parent
                .remove(name.as_c_str())
                .map_err(|errno| failed(child.path().to_owned(), errno))
        })
    }

    fn remove_at(&self, depth: usize) -> Result<()> {
        let Some(parent) = self.open(depth - 1)? else {
            return Ok(());
        };
        parent
            .remove(self.path.components()[depth - 1])
            .map_err(|errno| failed(self.directory(depth), errno))
    }

    /// What is said of a directory that stays.
    fn remaining(&self, depth: usize, error: Error) -> Remaining {
        let look = |dir: &Dir| pids_below(dir).unwrap_or_default();
        let dir = self.open(depth).ok().flatten();
        let pids = dir.as_ref().map_or_else(BTreeSet::new, look);
        let (path, source) = match error {
            Error::Io { path, source, .. } => (path, source),
            error => (self.directory(depth), std::io::Error::other(error)),
        };
        Remaining { path, pids, source }
    }
}

fn failed(path: PathBuf, errno: Errno) -> Error {
    Error::Io {
        attempt: "remove",
        path,
        source: errno.into(),
    }
}

/// Whether a directory was not removed because something is in it.
fn is_busy(error: &Error) -> bool {
    let Error::Io { source, .. } = error else {
        return false;
    };
    matches!(
        Errno::from_io_error(source),
        Some(Errno::BUSY | Errno::NOTEMPTY)
    )
}
