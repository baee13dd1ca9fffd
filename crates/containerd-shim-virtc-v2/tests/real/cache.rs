//! Machines that wait, for tasks.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use containerd_shim_protos::api::StartRequest;
use serde_json::Value;

use super::direct::{Direct, ID, NAMESPACE, client, delete, kill, limit, shut_down, wait};

/// How long a machine may take to be made behind a task.
const MADE_LIMIT: Duration = Duration::from_secs(60);

/// The state root of the shim's sandboxes.
fn state_root(direct: &Direct) -> PathBuf {
    let mut root = direct.host.root().into_os_string();
    root.push("-containerd");
    PathBuf::from(root).join(NAMESPACE)
}

/// The names of the machines that can be taken.
fn waiting(direct: &Direct) -> Vec<String> {
    let root = state_root(direct);
    let root = root.to_str().unwrap();
    let status = ["--root", root, "factory", "status", "-f", "json"];
    let listed = direct.host.virtc(status).expect_code(0).out();
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let waits = |one: &&Value| one["what"] == "waiting-vm" && one["used"].is_string();
    let waiting = listed.iter().filter(waits);
    waiting
        .map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits until one can be taken, which nothing announces.
fn made(direct: &Direct) -> Vec<String> {
    let end = Instant::now() + MADE_LIMIT;
    loop {
        let waiting = waiting(direct);
        if !waiting.is_empty() {
            return waiting;
        }
        assert!(Instant::now() < end, "none waits within {MADE_LIMIT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A task from its making to its end; says what could be taken once it was made.
fn task(direct: &Direct) -> Vec<String> {
    let address = String::from_utf8(direct.call("start", None, b"")).unwrap();
    let client = client(&address);
    client.create(limit(60), &direct.create()).unwrap();
    let after = waiting(direct);
    let request = StartRequest {
        id: ID.to_owned(),
        ..StartRequest::default()
    };
    client.start(limit(10), &request).unwrap();
    client.kill(limit(10), &kill()).unwrap();
    assert_eq!(client.wait(limit(10), &wait()).unwrap().exit_status, 137);
    client.delete(limit(10), &delete()).unwrap();
    shut_down(&client);
    after
}

#[test]
fn a_task_takes_a_machine_that_waits_and_has_the_next_one_made() {
    let mut direct = Direct::new(|_| {});
    let templates = direct.host.dir("factory").join("templates");
    let templates = templates.to_str().unwrap().to_owned();
    direct.host.env("VIRTC_FACTORY_DIR", &templates);
    direct.env = vec![
        ("VIRTC_FACTORY_ENABLE_TEMPLATE", "true".into()),
        ("VIRTC_FACTORY_VM_CACHE_NUMBER", "1".into()),
        ("VIRTC_FACTORY_DIR", templates),
    ];
    assert!(task(&direct).is_empty());
    // It waits, though the shim that had it made is gone.
    let first = made(&direct);
    assert!(task(&direct).is_empty(), "it was taken");
    let second = made(&direct);
    assert_ne!(first, second);
    let root = state_root(&direct);
    let destroy = ["--root", root.to_str().unwrap(), "factory", "destroy"];
    direct.host.virtc(destroy).expect_code(0);
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
}
