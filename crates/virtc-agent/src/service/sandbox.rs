//! `CreateSandbox`, of both services.

use agent_protocol::agent::CreateSandboxRequest;

use super::details::{set_hostname, write_dns};
use crate::error::{Error, Result};
use crate::sandbox::Sandbox;

/// Prepares the guest for its containers.
pub(super) async fn create(sandbox: &Sandbox, request: CreateSandboxRequest) -> Result<()> {
    if !request.guest_hook_path.is_empty() {
        return Err(Error::Unsupported("guest hooks are not supported".into()));
    }
    if !request.hostname.is_empty() {
        set_hostname(&request.hostname)?;
    }
    write_dns(&request.dns)?;
    for module in &request.kernel_modules {
        if !module.parameters.is_empty() {
            return Err(Error::Unsupported(
                "module parameters are not supported".into(),
            ));
        }
        sandbox.require_module(&module.name).await?;
    }
    match request.sandbox_pidns {
        true => sandbox.share_pids().await?,
        false => sandbox.share_no_pids(),
    }
    sandbox.add_storages(request.storages).await
}
