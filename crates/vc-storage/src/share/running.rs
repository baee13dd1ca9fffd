//! A share that serves already: what it gets and loses while it runs.

use std::io;
use std::path::Path;

use vc_launch::{Addition, TreeChange};
use vc_types::ProcessIdentity;

use super::device::{SHARED, propagation};
use super::plan::Access;
use super::source::Source;
use crate::error::{Error, Result};

/// A share that some process started, known by the identity of its process.
#[derive(Debug)]
pub struct RunningShare<'a> {
    /// What runs `internal change-tree`, see [`TreeChange`].
    pub program: &'a Path,
    /// Its process.
    pub process: &'a ProcessIdentity,
}

impl RunningShare<'_> {
    /// Adds files and directories at names of the share's top, each with what is mounted below
    /// it. A name that was used before must not be used again: the guest may remember what it was.
    ///
    /// It blocks for some milliseconds. After an error, [`RunningShare::remove`] takes out what
    /// was added.
    ///
    /// # Errors
    ///
    /// [`Error::ShareEnded`] when it does not run any more, [`Error::Launch`].
    pub fn add(&self, entries: Vec<(String, Source, Access)>) -> Result<()> {
        let add = entries
            .into_iter()
            .map(|(name, source, access)| {
                let addition = Addition {
                    at: format!("{SHARED}/{name}"),
                    read_only: access == Access::ReadOnly,
                    propagation: propagation(&name),
                };
                (addition, source.into_fd())
            })
            .collect();
        self.change(TreeChange {
            add,
            remove: Vec::new(),
        })
    }

    /// Takes out what was added under these names. What is not there is passed over.
    ///
    /// # Errors
    ///
    /// As [`RunningShare::add`].
    pub fn remove(&self, names: &[String]) -> Result<()> {
        let place = |name: &String| format!("{SHARED}/{name}");
        self.change(TreeChange {
            add: Vec::new(),
            remove: names.iter().map(place).collect(),
        })
    }

    fn change(&self, change: TreeChange) -> Result<()> {
        let failed = |source: io::Error| Error::ShareEnded {
            process: self.process.clone(),
            source,
        };
        let pidfd = self.process.open().map_err(failed)?;
        let pidfd = pidfd.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        Ok(change.apply(self.program, "the share", std::os::fd::AsFd::as_fd(&pidfd))?)
    }
}
