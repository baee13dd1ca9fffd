use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use virtcontainers::{IpVersion, Route};

use super::{Done, block_on, container, fetch, runtime};
use crate::cli::{GlobalArgs, NetworkArgs, NetworkCommand};
use crate::error::{Failure, USAGE};
use crate::output;

/// Bytes of a list of routes, many more than a guest has.
const ROUTES_BYTES_MAX: u64 = 1 << 20;

/// Bytes of rules: a little more than a guest takes, so that it says how much that is.
const RULES_BYTES_MAX: u64 = 4 << 20;

pub(crate) fn network(global: &GlobalArgs, args: &NetworkArgs) -> Done {
    let (NetworkCommand::Ls { id }
    | NetworkCommand::Route { id, .. }
    | NetworkCommand::Iptables { id, .. }) = &args.command;
    let (runtime, id) = (runtime(global)?, container(id)?);
    block_on(async {
        let sandbox = fetch(&runtime, &id).await?;
        match &args.command {
            NetworkCommand::Ls { .. } => output::json(&sandbox.list_interfaces().await?)?,
            NetworkCommand::Route { set: None, .. } => {
                output::json(&sandbox.list_routes().await?)?;
            }
            NetworkCommand::Route {
                set: Some(file), ..
            } => {
                let routes = routes(file)?;
                output::json(&sandbox.update_routes(&routes).await?)?;
            }
            NetworkCommand::Iptables { ipv6, set, .. } => {
                let version = match ipv6 {
                    true => IpVersion::V6,
                    false => IpVersion::V4,
                };
                if let Some(file) = set {
                    let rules = read(file, RULES_BYTES_MAX)?;
                    sandbox.set_iptables(version, &rules).await?;
                }
                let rules = sandbox.get_iptables(version).await?;
                output::lines(rules.lines())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })?
}

fn routes(path: &Path) -> Result<Vec<Route>, Failure> {
    let text = read(path, ROUTES_BYTES_MAX)?;
    serde_json::from_str(&text).map_err(|error| of_file(path, &error))
}

fn read(path: &Path, max: u64) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().take(max).read_to_string(&mut text),
        false => File::open(path).and_then(|file| file.take(max).read_to_string(&mut text)),
    };
    read.map_err(|error| of_file(path, &error))?;
    Ok(text)
}

fn of_file(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::plain(USAGE, error).note(format!("--set {}", path.display()))
}
