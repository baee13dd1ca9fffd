//! Copying into and out of a running container, through its guest.
//!
//! A process of the container, which is the agent's own program, packs or unpacks there, so that
//! what only the guest has is copied too. On the host, what comes from a guest is unpacked by a
//! process that is confined to the destination ([`ConfinedUnpack`]).

mod source;
mod transfer;

use std::io::{Read, Write};
use std::path::Path;

use agent_protocol::virtc;
use tree_archive::{Destination, Incoming, Pack, Rules};
use vc_launch::ConfinedUnpack;
use vc_types::ContainerId;

use self::source::{root_name, root_of};
use super::handle::SandboxHandle;
use crate::error::{Error, Result};
use crate::runtime::blocking;

/// How something is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// A link that is the source itself is followed. Those below it never are.
    pub follow_link: bool,
    /// Owners are kept by number. Otherwise what is copied belongs to whoever copies on the host,
    /// and to root in the container.
    pub archive: bool,
}

impl SandboxHandle {
    /// Copies a file or a directory of a running container to a path of the host, by the rules of
    /// `cp -a`: into a directory that exists, or with a new name; a source that ends with `/.` is
    /// what is in the directory. Modes, times and links are kept, set-id bits are not, and devices
    /// are refused. Nothing is written outside of the destination, whatever the guest sends.
    ///
    /// # Errors
    ///
    /// [`Error::NoContainer`], [`Error::Agent`] when the container does not run or is paused,
    /// [`Error::Copy`] for what cannot be read in it, [`Error::CopyOnHost`] for a destination that
    /// cannot be, [`Error::Launch`] for what cannot be written there or is refused, and
    /// [`Error::Ended`] when the machine ends meanwhile. What was copied before is left.
    ///
    /// ```no_run
    /// # async fn example(sandbox: virtcontainers::SandboxHandle) -> virtcontainers::Result<()> {
    /// let container = vc_types::ContainerId::new("web")?;
    /// let options = virtcontainers::CopyOptions::default();
    /// let destination = std::path::Path::new("/tmp");
    /// sandbox.copy_from_container(&container, "/var/log", destination, options).await
    /// # }
    /// ```
    pub async fn copy_from_container(
        &self,
        container: &ContainerId,
        source: &str,
        destination: &Path,
        options: CopyOptions,
    ) -> Result<()> {
        let incoming = match root_of(source) {
            Some(name) => Incoming::Named(name.to_owned()),
            None => Incoming::Contents,
        };
        let opened = Destination::open(destination, &incoming)?;
        let (reader, writer) = pipe()?;
        let rules = Rules {
            owners: options.archive,
            set_id: false,
        };
        let program = &self.0.runtime.program;
        let name = destination.display().to_string();
        let unpack = ConfinedUnpack::start(program, &name, reader.into(), opened, rules)?;
        let packed = self.pack(container, source, options, writer);
        let unpacked = blocking(move || Ok(unpack.wait()?));
        match tokio::join!(packed, unpacked) {
            // An archive without its end is no news then.
            (Err(error), _) => Err(error),
            (Ok(_), Err(error)) => Err(error),
            (Ok(sent), Ok(())) => sent.map_err(unwritable),
        }
    }

    /// Copies a file or a directory of the host into a running container, by the rules of
    /// [`SandboxHandle::copy_from_container`]. A path in the container begins at its root.
    ///
    /// # Errors
    ///
    /// Those of [`SandboxHandle::copy_from_container`], the sides exchanged:
    /// [`Error::CopyOnHost`] for what cannot be read, [`Error::Copy`] for what cannot be written.
    pub async fn copy_to_container(
        &self,
        container: &ContainerId,
        source: &Path,
        destination: &str,
        options: CopyOptions,
    ) -> Result<()> {
        let name = source::local_root(source)?;
        let incoming = match name {
            Some(_) => virtc::Incoming::NAMED,
            None => virtc::Incoming::CONTENTS,
        };
        let pack = Pack {
            path: source.to_owned(),
            root: name.unwrap_or(".").into(),
            follow: options.follow_link,
        };
        // Before anything is asked of the guest.
        pack.check()?;
        let (reader, writer) = pipe()?;
        let packed = blocking(move || Ok(pack.write(writer)?));
        let root = name.unwrap_or_default();
        let unpacked = self.unpack(container, destination, (incoming, root), options, reader);
        match tokio::join!(packed, unpacked) {
            // The guest has the reason why it takes no more.
            (Err(Error::CopyOnHost(tree_archive::Error::Stream { .. })), Err(error)) => Err(error),
            (Err(error), _) => Err(error),
            (Ok(()), unpacked) => unpacked,
        }
    }

    /// Writes a tar archive of a file or a directory of a running container. Its names begin with
    /// the last name of the path, or with `.` where that ends with `/.`. The archive is the
    /// guest's: whoever unpacks it has to be careful.
    ///
    /// # Errors
    ///
    /// Those of [`SandboxHandle::copy_from_container`], and [`Error::System`] when `sink` takes no
    /// more.
    pub async fn archive_from_container(
        &self,
        container: &ContainerId,
        source: &str,
        sink: impl Write + Send + 'static,
        options: CopyOptions,
    ) -> Result<()> {
        let sent = self.pack(container, source, options, sink).await?;
        sent.map_err(unwritable)
    }

    /// Unpacks a tar archive in a directory of a running container, which exists.
    ///
    /// # Errors
    ///
    /// Those of [`SandboxHandle::copy_to_container`], and [`Error::System`] when the archive cannot
    /// be read.
    pub async fn archive_to_container(
        &self,
        container: &ContainerId,
        destination: &str,
        archive: impl Read + Send + 'static,
        options: CopyOptions,
    ) -> Result<()> {
        let incoming = (virtc::Incoming::ARCHIVE, "");
        self.unpack(container, destination, incoming, options, archive)
            .await
    }

    async fn pack(
        &self,
        container: &ContainerId,
        source: &str,
        options: CopyOptions,
        sink: impl Write + Send + 'static,
    ) -> Result<std::io::Result<()>> {
        let request = virtc::PackPathRequest {
            path: source.to_owned(),
            root: root_name(source).to_owned(),
            follow: options.follow_link,
            ..virtc::PackPathRequest::default()
        };
        transfer::out(self, container, request, sink).await
    }

    async fn unpack(
        &self,
        container: &ContainerId,
        destination: &str,
        (incoming, root): (virtc::Incoming, &str),
        options: CopyOptions,
        archive: impl Read + Send + 'static,
    ) -> Result<()> {
        let request = virtc::UnpackPathRequest {
            path: destination.to_owned(),
            incoming: incoming.into(),
            root: root.to_owned(),
            owners: options.archive,
            ..virtc::UnpackPathRequest::default()
        };
        transfer::into(self, container, request, archive).await
    }
}

fn pipe() -> Result<(std::io::PipeReader, std::io::PipeWriter)> {
    std::io::pipe().map_err(|source| Error::System {
        attempt: "make a pipe".into(),
        source,
    })
}

fn unwritable(source: std::io::Error) -> Error {
    Error::System {
        attempt: "write the archive".into(),
        source,
    }
}
