use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;
use vc_types::ContainerState;
use virtcontainers::View;

use super::{Done, container, oci_status, runtime};
use crate::cli::{GlobalArgs, IdArgs};
use crate::output;

/// What the OCI runtime specification asks for, version 1.0.2, and after it what runc adds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    oci_version: &'static str,
    id: String,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: String,
    annotations: BTreeMap<String, String>,
    created: String,
    owner: &'static str,
    sandbox: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
}

pub(crate) fn state(global: &GlobalArgs, args: &IdArgs) -> Done {
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    let sandbox = runtime.find_container(&id)?;
    let record = runtime.status_sandbox(&sandbox)?;
    let view = View::of(&record);
    let (Some(seen), Some(container)) = (view.containers.get(&id), record.containers.get(&id))
    else {
        return Err(virtcontainers::Error::UnknownContainer { container: id }.into());
    };
    let bundle = container.bundle.as_ref();
    let keeper = record.keeper.as_ref().filter(|keeper| keeper.is_alive());
    output::json(&State {
        oci_version: "1.0.2",
        id: id.to_string(),
        status: oci_status(seen.state).to_owned(),
        pid: keeper
            .map(|keeper| keeper.pid())
            .filter(|_| seen.state != ContainerState::Stopped),
        bundle: bundle.map_or_else(String::new, |bundle| bundle.display().to_string()),
        annotations: BTreeMap::new(),
        created: container.created.to_string(),
        owner: "",
        sandbox: sandbox.to_string(),
        exit_code: seen.exit.as_ref().map(|exit| exit.shell_code()),
    })?;
    Ok(ExitCode::SUCCESS)
}
