use std::process::ExitCode;

use serde::Serialize;
use virtcontainers::{Listed, View};

use super::{Done, oci_status, runtime};
use crate::cli::{GlobalArgs, ListArgs, OutputFormat};
use crate::output;

/// One container, with runc's keys first.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    pid: i32,
    status: String,
    bundle: String,
    created: String,
    sandbox: String,
    command: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) fn list(global: &GlobalArgs, args: &ListArgs) -> Done {
    let rows: Vec<Row> = runtime(global)?
        .list_sandbox()?
        .into_iter()
        .flat_map(rows)
        .collect();
    match (args.quiet, args.format.format) {
        (true, _) => {
            for row in &rows {
                output::line(&row.id)?;
            }
        }
        (false, OutputFormat::Json) => output::json(&rows)?,
        (false, OutputFormat::Table) => {
            let cells: Vec<_> = rows
                .iter()
                .map(|row| {
                    let shown = row.error.clone().unwrap_or_else(|| row.command.join(" "));
                    let pid = row.pid.to_string();
                    [
                        row.id.clone(),
                        pid,
                        row.status.clone(),
                        row.created.clone(),
                        shown,
                    ]
                })
                .collect();
            output::table(["ID", "PID", "STATUS", "CREATED", "COMMAND"], &cells)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(listed: Listed) -> Vec<Row> {
    let record = match listed {
        Listed::Sandbox(record) => record,
        Listed::Broken { id, path, error } => {
            return vec![Row {
                id: id.to_string(),
                pid: 0,
                status: "broken".into(),
                bundle: String::new(),
                created: String::new(),
                sandbox: id.to_string(),
                command: Vec::new(),
                exit_code: None,
                error: Some(format!(
                    "{}: {error} (mend: virtc delete --force {id})",
                    path.display()
                )),
            }];
        }
    };
    let view = View::of(&record);
    let sandbox = record.id().to_string();
    let pid = record
        .keeper
        .as_ref()
        .filter(|k| k.is_alive())
        .map_or(0, |k| k.pid());
    record
        .containers
        .iter()
        .map(|(id, container)| {
            let seen = view.containers.get(id);
            // What happens to the sandbox says more than the container's own state.
            let status = match &view.activity {
                Some(_) => view.status(),
                None => {
                    seen.map_or_else(|| view.status(), |seen| oci_status(seen.state).to_owned())
                }
            };
            Row {
                id: id.to_string(),
                pid,
                status,
                bundle: container
                    .bundle
                    .as_ref()
                    .map_or_else(String::new, |b| b.display().to_string()),
                created: record.created.to_string(),
                sandbox: sandbox.clone(),
                command: container.command.clone(),
                exit_code: seen
                    .and_then(|s| s.exit.as_ref())
                    .map(|exit| exit.shell_code()),
                error: None,
            }
        })
        .collect()
}
