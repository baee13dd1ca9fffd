//! A container that is made and removed before a template is saved.
//!
//! The first container of a guest pays for what is done once: the pages of programs and tables come,
//! caches are made, the kernel's parts initialise themselves, the filter of system calls is
//! compiled. In a template it has been paid, and the first container of each clone is a second one.

use std::fs;
use std::path::Path;

use agent_protocol::agent::CreateContainerRequest;
use agent_protocol::oci_convert::spec_to_message;
use default_spec::{DEFAULT_CAPABILITIES, ProcessConfig, default_spec};
use oci_spec::runtime::Spec;

use super::{Container, ReadyMade};
use crate::error::{Attempt as _, Error, Result};
use crate::sandbox::{Sandbox, start_blocking_threads};

/// Its name, which is free again afterwards.
const ID: &str = "rehearsal";

const ROOT: &str = "/run/virtc/rehearsal";

/// Does once what the first container of each clone need not do then, and says whether it could.
///
/// # Errors
///
/// Where something is left of it: a template has no container but the one that waits.
pub(crate) async fn rehearse(sandbox: &Sandbox) -> Result<bool> {
    let rehearsed = async {
        sandbox.share_pids().await?;
        ReadyMade::stand_by(sandbox).await?;
        Container::rehearse(sandbox).await?;
        ReadyMade::stand_by(sandbox).await?;
        sandbox.launcher.stand_by().await?;
        start_blocking_threads().await
    };
    match rehearsed.await {
        Ok(()) => Ok(true),
        Err(error) if sandbox.containers.all().is_empty() => {
            tracing::warn!("{}", error.chain());
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

impl Container {
    /// Makes and removes a container that runs nothing.
    async fn rehearse(sandbox: &Sandbox) -> Result<()> {
        let attempt = || "rehearse a container".to_owned();
        let spec = usual_spec()?;
        fs::create_dir_all(ROOT).attempt(attempt)?;
        let request = CreateContainerRequest {
            container_id: ID.to_owned(),
            OCI: Some(spec_to_message(&spec)?).into(),
            sandbox_pidns: true,
            ..CreateContainerRequest::default()
        };
        Self::create(sandbox, request, None, Vec::new()).await?;
        Self::remove(sandbox, ID).await?;
        // With the places of its mounts, which were made in it.
        fs::remove_dir_all(ROOT).attempt(attempt)
    }
}

/// What a throw-away VM's container has when its user asks for nothing special.
pub(super) fn usual_spec() -> Result<Spec> {
    let known = DEFAULT_CAPABILITIES
        .iter()
        .filter_map(|name| name.strip_prefix("CAP_")?.parse().ok());
    let spec = default_spec(ProcessConfig {
        args: vec!["/nothing".into()],
        env: vec!["PATH=/usr/bin:/bin".into(), "HOME=/".into()],
        cwd: "/".into(),
        user: (0, 0, vec![]),
        terminal: false,
        capabilities: known.collect(),
        read_only: false,
        hostname: Some(ID.into()),
    });
    let mut spec = spec.map_err(|error| Error::Invalid {
        field: "specification",
        value: error.to_string(),
        reason: "is not what containers usually have",
    })?;
    if let Some(root) = spec.root_mut() {
        root.set_path(Path::new(ROOT).to_owned());
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rehearsed_is_complete_and_can_be_sent() {
        let spec = usual_spec().unwrap();
        let process = spec.process().as_ref().unwrap();
        let capabilities = process.capabilities().as_ref().unwrap();
        let bounding = capabilities.bounding().as_ref().unwrap();
        assert_eq!(bounding.len(), DEFAULT_CAPABILITIES.len());
        assert!(spec_to_message(&spec).is_ok());
    }
}
