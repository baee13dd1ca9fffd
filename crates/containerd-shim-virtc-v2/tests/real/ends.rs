//! What is told and left when something dies that nothing asked to.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::{Containerd, image};

/// Within which containerd is to know of an end.
const TOLD_LIMIT: Duration = Duration::from_secs(2);

/// Begins a task, lets `kill` end what it wants, and checks what containerd is told.
fn killed(kill: impl FnOnce(&Containerd)) {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    containerd.begin(&[], "c1", &["sleep", "1000"]);
    let events = containerd.dir("events").join("told");
    let file = std::fs::File::create(&events).unwrap();
    let mut watching = containerd
        .command(&["events"])
        .stdout(Stdio::from(file))
        .spawn()
        .unwrap();
    let told = || std::fs::read_to_string(&events).unwrap();
    // It says nothing when it begins to listen, but of what happens then.
    containerd.wait_for("an event", || {
        containerd.done(&["image", "label", image::NAME, "listened=for"]);
        told().contains("/images/update")
    });
    let began = Instant::now();
    kill(&containerd);
    containerd.wait_for("the end that is told", || told().contains("/tasks/exit"));
    let took = began.elapsed();
    assert!(took < TOLD_LIMIT, "told after {took:?}");
    assert!(told().contains("\"exit_status\":137"), "{}", told());
    watching.kill().unwrap();
    watching.wait().unwrap();
    containerd.wait_for("the end of the task", || {
        containerd
            .state("c1")
            .is_none_or(|state| state == "STOPPED")
    });
    // Where the shim is gone, so is the task.
    containerd.ctr(&["task", "rm", "c1"]);
    containerd.done(&["container", "rm", "c1"]);
}

#[test]
fn a_machine_that_dies_is_an_error_of_its_task() {
    killed(|containerd| {
        let vmm = containerd.vmm(containerd.shim("c1"));
        kill_process(vmm, Signal::KILL).unwrap();
    });
}

#[test]
fn a_shim_that_is_killed_leaves_nothing() {
    killed(|containerd| kill_process(containerd.shim("c1"), Signal::KILL).unwrap());
}

#[test]
fn a_task_outlives_containerd() {
    let Some(mut containerd) = Containerd::new() else {
        return;
    };
    containerd.begin(&[], "c1", &["sleep", "1000"]);
    containerd.begin(
        &[],
        "c2",
        &["sh", "-c", "while [ ! -e /go ]; do sleep 0.1; done; exit 9"],
    );
    let shim = containerd.shim("c1");
    assert!(
        containerd
            .exec("c2", "e1", &["touch", "/go-later"])
            .status
            .success()
    );
    containerd.kill();
    containerd.start();
    assert_eq!(containerd.state("c1").as_deref(), Some("RUNNING"));
    assert_eq!(containerd.shim("c1"), shim);
    let output = containerd.exec("c1", "e1", &["echo", "still"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "still\n");
    // The task ends by it, and can take its machine along before the end of this is told.
    containerd.exec("c2", "e2", &["touch", "/go"]);
    containerd.wait_for("the end of the task", || {
        containerd.state("c2").as_deref() == Some("STOPPED")
    });
    let removed = containerd.ctr(&["task", "rm", "c2"]);
    let said = String::from_utf8_lossy(&removed.stderr).into_owned();
    assert!(said.contains("exit with non-zero exit code 9"), "{said}");
    containerd.done(&["container", "rm", "c2"]);
    containerd.remove("c1");
}
