use std::collections::BTreeMap;
use std::process::ExitCode;

use super::owner::Owners;
use super::{Done, container, oci_status, runtime};
use crate::cli::{GlobalArgs, IdArgs};
use crate::output;
use serde::Serialize;

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
    owner: String,
    sandbox: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
}

pub(crate) fn state(global: &GlobalArgs, args: &IdArgs) -> Done {
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    let sandbox = runtime.find_container(&id)?;
    let seen = runtime.status_container(&sandbox, &id)?;
    let bundle = seen.bundle.as_ref();
    output::json(&State {
        oci_version: "1.0.2",
        id: id.to_string(),
        status: oci_status(seen.state, seen.creating).to_owned(),
        pid: seen.pid,
        bundle: bundle.map_or_else(String::new, |bundle| bundle.display().to_string()),
        annotations: seen.annotations,
        created: seen.created.to_string(),
        owner: Owners::read().of(&runtime.sandbox_directory(&sandbox)?),
        sandbox: sandbox.to_string(),
        exit_code: seen.exit.as_ref().map(|exit| exit.shell_code()),
    })?;
    Ok(ExitCode::SUCCESS)
}
