//! Processes that copy into and out of a container.

use agent_protocol::virtc::{PackPathRequest, UnpackPathRequest};

use crate::client::AgentClient;
use crate::error::Result;

impl AgentClient {
    /// Adds a process to a running container that writes an archive of a path to its stdout.
    ///
    /// # Errors
    ///
    /// As every call. Why the path cannot be packed is on the process's stderr.
    pub async fn pack_path(&self, request: PackPathRequest) -> Result<()> {
        let call = self.guest.pack_path(self.long(), &request);
        self.much("add a process that packs", call).await?;
        Ok(())
    }

    /// Adds a process to a running container that unpacks an archive from its stdin.
    ///
    /// # Errors
    ///
    /// As every call. Why it cannot be unpacked is on the process's stderr.
    pub async fn unpack_path(&self, request: UnpackPathRequest) -> Result<()> {
        let call = self.guest.unpack_path(self.long(), &request);
        self.much("add a process that unpacks", call).await?;
        Ok(())
    }
}
