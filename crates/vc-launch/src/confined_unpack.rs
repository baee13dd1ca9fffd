//! Unpacking what a guest sends, in a process that can do nothing else.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tree_archive::{Destination, Names, Rules};

use crate::error::{Error, Result};
use crate::launcher::spawn_step;
use crate::process::{LaunchedProcess, ProcessEnd};
use crate::wire::{ANSWER_BYTES_MAX, send_order};

/// A process that unpacks an archive below one directory. Its root is that directory, and it has
/// the rights that making files there takes and no others. Dropping this ends it.
#[derive(Debug)]
pub struct ConfinedUnpack {
    process: LaunchedProcess,
    socket: UnixStream,
    destination: String,
}

/// What the step is told. The archive and the directory are its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UnpackOrder {
    pub(crate) names: Names,
    pub(crate) rules: Rules,
}

impl ConfinedUnpack {
    /// Starts to unpack what comes by `archive`. `program` is what runs
    /// [`internal_unpack`](crate::internal_unpack) when its arguments are `internal unpack`, and
    /// `name` is what messages call the destination.
    ///
    /// # Errors
    ///
    /// [`Error::Spawn`] and [`Error::Transfer`] when the step does not run.
    pub fn start(
        program: &Path,
        name: &str,
        archive: OwnedFd,
        destination: Destination,
        rules: Rules,
    ) -> Result<Self> {
        let transfer = |source| Error::Transfer {
            name: name.into(),
            source,
        };
        let (socket, theirs) = UnixStream::pair().map_err(transfer)?;
        let process = spawn_step(program, "unpack", name, theirs)?;
        let Destination { directory, names } = destination;
        let descriptors = [archive.as_fd(), directory.as_fd()];
        send_order(&socket, &UnpackOrder { names, rules }, &descriptors).map_err(transfer)?;
        Ok(Self {
            process,
            socket,
            destination: name.to_owned(),
        })
    }

    /// Waits until all of the archive is unpacked. It blocks, for as long as the archive lasts.
    ///
    /// # Errors
    ///
    /// [`Error::Unpack`] with the file that was refused or could not be made,
    /// [`Error::EndedEarly`] when the process ended without saying why.
    pub fn wait(mut self) -> Result<()> {
        let mut said = String::new();
        let read = (&self.socket)
            .take(ANSWER_BYTES_MAX as u64)
            .read_to_string(&mut said);
        read.map_err(|source| Error::Transfer {
            name: self.destination.clone(),
            source,
        })?;
        let end = self.process.wait()?;
        match (said.is_empty(), end) {
            (true, ProcessEnd::Code(0)) => Ok(()),
            (true, end) => Err(Error::EndedEarly {
                name: self.destination.clone(),
                end: end.to_string(),
            }),
            (false, _) => Err(Error::Unpack {
                destination: self.destination.clone(),
                reason: vc_types::one_line(&said),
            }),
        }
    }
}
