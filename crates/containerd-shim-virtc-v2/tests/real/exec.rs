//! Processes that are added to a task.

use std::io::Write;
use std::process::Stdio;

use containerd_shim_protos::TaskClient;
use containerd_shim_protos::api::{DeleteRequest, ExecProcessRequest, StartRequest, WaitRequest};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::{Client, context};
use rustix::process::Pid;
use serde_json::json;

use super::Containerd;
use super::soak::count;

/// What a shim with one container may take that waits: 4 MB.
pub(super) const PSS_KIB_MAX: usize = 4_000_000 / 1024;

/// How many execs one task sees here, and in the soak.
fn execs() -> usize {
    count("VIRTC_TEST_EXECS", 200)
}

#[test]
fn a_process_is_added_with_its_streams_and_its_exit_code() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    containerd.begin(&[], "c1", &["sleep", "1000"]);
    let output = containerd.exec("c1", "e1", &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("err\n"));
    assert_eq!(output.status.code(), Some(7));
    // Input has an end.
    let mut counting = containerd
        .command(&["task", "exec", "--exec-id", "e2", "c1", "wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    counting
        .stdin
        .take()
        .unwrap()
        .write_all(&[b'x'; 300_000])
        .unwrap();
    let counted = counting.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), "300000");
    let missing = containerd.exec("c1", "e3", &["no-such-program"]);
    assert!(!missing.status.success());
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(said.contains("no-such-program"), "{said}");
    assert!(said.contains("cannot be executed"), "{said}");
    // The id of one that is over can be used again.
    let output = containerd.exec("c1", "e1", &["echo", "again"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "again\n");
    containerd.remove("c1");
}

/// How many descriptors and threads a shim has.
pub(super) fn held(containerd: &Containerd, id: &str) -> (usize, usize) {
    let shim = containerd.shim(id).as_raw_nonzero();
    let count = |what: &str| {
        let entries = std::fs::read_dir(format!("/proc/{shim}/{what}"));
        entries.unwrap().count()
    };
    (count("fd"), count("task"))
}

/// The KiB of a shim's memory that the kernel gives this name. The shim is asked nothing: it gives memory
/// back where it rests.
pub(super) fn memory(shim: Pid, name: &str) -> usize {
    let path = format!("/proc/{}/smaps_rollup", shim.as_raw_nonzero());
    let smaps = std::fs::read_to_string(path).unwrap();
    let line = smaps.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.unwrap().trim().trim_end_matches("kB").trim();
    kib.parse().unwrap()
}

#[test]
fn what_a_process_left_running_holds_nothing_in_the_shim() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    containerd.begin(&[], "c1", &["sleep", "1000"]);
    let output = containerd.exec("c1", "e0", &["true"]);
    assert!(output.status.success(), "{}", containerd.log());
    let before = held(&containerd, "c1");
    // Its child has its streams, and does not end.
    let output = containerd.exec("c1", "e1", &["sh", "-c", "sleep 4242 & echo said"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "said\n");
    assert_eq!(output.status.code(), Some(0));
    assert!(
        containerd
            .done(&["task", "ps", "c1"])
            .contains("sleep 4242")
    );
    let shim = containerd.shim("c1").as_raw_nonzero();
    let pipes = || {
        let entries = std::fs::read_dir(format!("/proc/{shim}/fd")).unwrap();
        let names = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        names
            .filter(|name| name.to_string_lossy().contains("e1-std"))
            .count()
    };
    containerd.wait_for("the end of what the process had", || {
        let now = held(&containerd, "c1");
        pipes() == 0 && now.0 <= before.0 && now.1 <= before.1
    });
    containerd.remove("c1");
}

#[test]
fn a_process_whose_streams_cannot_be_carried_is_killed() {
    let Some(mut containerd) = Containerd::new() else {
        return;
    };
    containerd.restart_with_fault(Some("exec.carried:error"));
    containerd.begin(&[], "c1", &["sleep", "1000"]);
    let output = containerd.exec("c1", "e1", &["sleep", "4242"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("exec.carried"), "{error}");
    containerd.wait_for("the end of the process", || {
        let listed = containerd.done(&["task", "ps", "c1"]);
        assert!(listed.contains("sleep 1000"), "{listed}");
        !listed.contains("sleep 4242")
    });
    containerd.remove("c1");
}

/// Adds a process to a container by its shim, waits for it, and removes it.
pub(super) fn exec(client: &TaskClient, id: &str, exec: &str) {
    let (id, exec_id) = (id.to_owned(), exec.to_owned());
    let limit = || context::with_timeout(20_000_000_000);
    let process = json!({
        "args": ["/bin/true"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
    });
    let request = ExecProcessRequest {
        id: id.clone(),
        exec_id: exec_id.clone(),
        spec: MessageField::some(Any {
            value: process.to_string().into_bytes(),
            ..Any::default()
        }),
        ..ExecProcessRequest::default()
    };
    client.exec(limit(), &request).unwrap();
    let request = StartRequest {
        id: id.clone(),
        exec_id: exec_id.clone(),
        ..StartRequest::default()
    };
    client.start(limit(), &request).unwrap();
    let request = WaitRequest {
        id: id.clone(),
        exec_id: exec_id.clone(),
        ..WaitRequest::default()
    };
    assert_eq!(client.wait(limit(), &request).unwrap().exit_status, 0);
    let request = DeleteRequest {
        id,
        exec_id,
        ..DeleteRequest::default()
    };
    client.delete(limit(), &request).unwrap();
}

#[test]
fn many_execs_leave_nothing_in_the_shim() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    containerd.begin(&[], "c1", &["sleep", "1000"]);
    // By the shim's own socket: a client of the daemon's takes longer than what is looked at.
    let client = TaskClient::new(Client::connect(&containerd.address("c1")).unwrap());
    let run = |number: usize| exec(&client, "c1", &format!("e{number}"));
    run(0);
    let before = held(&containerd, "c1");
    // More of the same binary that run at the same time make it smaller, never larger.
    let shim = containerd.shim("c1");
    let pss = || memory(shim, "Pss:");
    for number in 1..=execs() {
        run(number);
    }
    containerd.wait_for("the end of what the execs had", || {
        let now = held(&containerd, "c1");
        now.0 <= before.0 && now.1 <= before.1
    });
    containerd.wait_for("what a shim may take that waits", || pss() <= PSS_KIB_MAX);
    containerd.remove("c1");
}
