use std::process::ExitCode;

use serde::Serialize;

use super::{Done, runtime};
use crate::cli::{FormatArgs, GlobalArgs, OutputFormat};
use crate::output;

/// What takes part in a start, each with its version.
#[derive(Debug, Serialize)]
struct Versions {
    virtc: &'static str,
    spec: &'static str,
    qemu: Option<String>,
    guest_kernel: Option<String>,
    guest_assets: Option<String>,
}

/// The OCI runtime specification that containers are described in.
pub(super) const SPEC: &str = "1.1.0";

pub(crate) fn version(global: &GlobalArgs, args: &FormatArgs) -> Done {
    let parts = runtime(global)?.versions();
    let versions = Versions {
        virtc: env!("CARGO_PKG_VERSION"),
        spec: SPEC,
        qemu: parts.qemu,
        guest_kernel: parts.guest_kernel,
        guest_assets: parts.guest_assets,
    };
    if args.format == OutputFormat::Json {
        output::json(&versions)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = |value: Option<String>| value.unwrap_or_else(|| "not found".to_owned());
    output::line(&format!("virtc version {}", versions.virtc))?;
    output::line(&format!("spec: {}", versions.spec))?;
    output::line(&format!("qemu: {}", shown(versions.qemu)))?;
    output::line(&format!("guest kernel: {}", shown(versions.guest_kernel)))?;
    output::line(&format!("guest assets: {}", shown(versions.guest_assets)))?;
    Ok(ExitCode::SUCCESS)
}
