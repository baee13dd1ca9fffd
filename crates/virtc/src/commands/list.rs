use std::process::ExitCode;

use serde::Serialize;
use vc_types::Observer;
use virtcontainers::{Activity, ContainerStatus, Listed, Verb, View};

use super::owner::Owners;
use super::{Done, oci_status, runtime};
use crate::cli::{GlobalArgs, ListArgs, OutputFormat};
use crate::output;

/// The version of the OCI specification that states are described in.
const OCI_VERSION: &str = "1.0.2";

/// runc's, and ours after them.
const HEADINGS: [&str; 7] = [
    "ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER", "COMMAND",
];

/// One container, with runc's keys first. `rootfs` is left out: the state does not have it.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(rename = "ociVersion")]
    oci_version: &'static str,
    id: String,
    pid: i32,
    status: String,
    bundle: String,
    created: String,
    owner: String,
    sandbox: String,
    command: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) fn list(global: &GlobalArgs, args: &ListArgs) -> Done {
    let runtime = runtime(global)?;
    let owners = Owners::read();
    let root = &runtime.config().runtime.root;
    let observer = Observer::of_this_process();
    let rows: Vec<Row> = runtime
        .each_sandbox()?
        .flat_map(|listed| {
            let owner = owners.of(&root.join(listed.id()));
            rows(listed, &owner, &observer)
        })
        .collect();
    match (args.quiet, args.format.format) {
        (true, _) => output::lines(rows.iter().map(|row| &row.id))?,
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
                        row.bundle.clone(),
                        row.created.clone(),
                        row.owner.clone(),
                        shown,
                    ]
                })
                .collect();
            output::table(HEADINGS, &cells)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(listed: Listed, owner: &str, observer: &Observer) -> Vec<Row> {
    let record = match listed {
        Listed::Sandbox(record) => record,
        Listed::Broken { id, path, error } => {
            return vec![Row {
                oci_version: OCI_VERSION,
                owner: owner.to_owned(),
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
    let view = View::seen(&record, observer);
    let sandbox = record.id().to_string();
    record
        .containers
        .iter()
        .map(|(id, container)| {
            let seen = view.containers.get(id);
            let status = match seen {
                Some(seen) if !concerns_all(view.activity.as_ref()) => {
                    oci_status(seen.state, seen.creating).to_owned()
                }
                _ => view.status(),
            };
            let known = ContainerStatus::seen(&record, &view, observer, id).ok();
            Row {
                oci_version: OCI_VERSION,
                owner: owner.to_owned(),
                id: id.to_string(),
                pid: known.and_then(|status| status.pid).unwrap_or(0),
                status,
                bundle: container
                    .bundle
                    .as_ref()
                    .map_or_else(String::new, |b| b.display().to_string()),
                created: container.created.to_string(),
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

/// Whether what happens to the sandbox says more of each container than its own state.
fn concerns_all(activity: Option<&Activity>) -> bool {
    match activity {
        None => false,
        Some(Activity::Interrupted { .. }) => true,
        Some(Activity::Running { verb, .. }) => !matches!(
            verb,
            Verb::CreateContainer | Verb::DeleteContainer | Verb::Update
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use vc_store::{ContainerRecord, SandboxRecord, Unreadable};
    use vc_types::{ContainerState, ExitStatus, ProcessIdentity, SandboxState};

    use super::*;

    fn record(state: ContainerState) -> SandboxRecord {
        let mut record = SandboxRecord::new("s1".parse().unwrap()).unwrap();
        record.state = SandboxState::Running;
        record.keeper = Some(ProcessIdentity::current().unwrap());
        let mut container = ContainerRecord::new(vec!["sh".into()]);
        container.state = state;
        container.bundle = Some("/bundle".into());
        container.exit = (state == ContainerState::Stopped).then_some(ExitStatus::Code(3));
        record.containers.insert("c1".parse().unwrap(), container);
        record
    }

    fn row(record: SandboxRecord) -> (String, Value) {
        let listed = rows(
            Listed::Sandbox(record),
            "root",
            &Observer::of_this_process(),
        );
        let [row] = listed.as_slice() else {
            panic!("one container");
        };
        let text = serde_json::to_string(row).unwrap();
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    #[test]
    fn a_row_has_runcs_keys_before_ours() {
        let (text, row) = row(record(ContainerState::Running));
        let keys = [
            "ociVersion",
            "id",
            "pid",
            "status",
            "bundle",
            "created",
            "owner",
            "sandbox",
            "command",
        ];
        let places: Vec<_> = keys
            .iter()
            .map(|key| {
                text.find(&format!("\"{key}\":"))
                    .unwrap_or_else(|| panic!("{key}"))
            })
            .collect();
        assert!(places.is_sorted(), "{text}");
        assert_eq!(row.as_object().unwrap().len(), keys.len());
        let values = [
            &row["id"],
            &row["pid"],
            &row["status"],
            &row["bundle"],
            &row["owner"],
        ];
        let pid = std::process::id();
        let expected = [
            json!("c1"),
            json!(pid),
            json!("running"),
            json!("/bundle"),
            json!("root"),
        ];
        assert_eq!(values, expected.each_ref());
    }

    #[test]
    fn a_container_that_stopped_has_no_pid() {
        let (_, row) = row(record(ContainerState::Stopped));
        assert_eq!(
            (&row["pid"], &row["status"]),
            (&json!(0), &json!("stopped"))
        );
        assert_eq!(row["exit_code"], json!(3));
    }

    #[test]
    fn what_is_done_with_one_container_is_not_the_state_of_the_others() {
        let running = |verb| {
            let step = String::new();
            concerns_all(Some(&Activity::Running { verb, step, pid: 1 }))
        };
        for verb in [Verb::CreateContainer, Verb::DeleteContainer, Verb::Update] {
            assert!(!running(verb), "{verb:?}");
        }
        for verb in [Verb::Create, Verb::Delete, Verb::Pause, Verb::Gc] {
            assert!(running(verb), "{verb:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_how_it_is_mended() {
        let broken = Listed::Broken {
            id: "s1".parse().unwrap(),
            path: "/state/s1".into(),
            error: Unreadable::Missing,
        };
        let listed = rows(broken, "root", &Observer::of_this_process());
        assert_eq!(
            (listed[0].id.as_str(), listed[0].status.as_str()),
            ("s1", "broken")
        );
        assert!(
            listed[0]
                .error
                .as_ref()
                .unwrap()
                .contains("delete --force s1")
        );
    }
}
