//! Copying into and out of a container by its name and that of its sandbox.

use std::io::{Read, Write};
use std::path::Path;

use vc_types::{ContainerId, SandboxId};

use super::Runtime;
use crate::error::Result;
use crate::sandbox::CopyOptions;

impl Runtime {
    /// Copies out of a running container, see [`crate::SandboxHandle::copy_from_container`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_container`] and [`crate::SandboxHandle::copy_from_container`].
    pub async fn copy_from_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        source: &str,
        destination: &Path,
        options: CopyOptions,
    ) -> Result<()> {
        let sandbox = self.fetch_container(sandbox, container).await?;
        sandbox
            .copy_from_container(container, source, destination, options)
            .await
    }

    /// Copies into a running container, see [`crate::SandboxHandle::copy_to_container`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_container`] and [`crate::SandboxHandle::copy_to_container`].
    pub async fn copy_to_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        source: &Path,
        destination: &str,
        options: CopyOptions,
    ) -> Result<()> {
        let sandbox = self.fetch_container(sandbox, container).await?;
        sandbox
            .copy_to_container(container, source, destination, options)
            .await
    }

    /// Writes a tar archive of a path of a running container, see
    /// [`crate::SandboxHandle::archive_from_container`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_container`] and [`crate::SandboxHandle::archive_from_container`].
    pub async fn archive_from_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        source: &str,
        sink: impl Write + Send + 'static,
        options: CopyOptions,
    ) -> Result<()> {
        let sandbox = self.fetch_container(sandbox, container).await?;
        sandbox
            .archive_from_container(container, source, sink, options)
            .await
    }

    /// Unpacks a tar archive in a running container, see
    /// [`crate::SandboxHandle::archive_to_container`].
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::fetch_container`] and [`crate::SandboxHandle::archive_to_container`].
    pub async fn archive_to_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        destination: &str,
        archive: impl Read + Send + 'static,
        options: CopyOptions,
    ) -> Result<()> {
        let sandbox = self.fetch_container(sandbox, container).await?;
        sandbox
            .archive_to_container(container, destination, archive, options)
            .await
    }
}
