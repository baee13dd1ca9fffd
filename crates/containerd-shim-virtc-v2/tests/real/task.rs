//! The life of a task.

use std::process::Stdio;

use super::Containerd;

#[test]
fn a_task_runs_and_its_end_is_told_in_order() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    let mut watched = containerd
        .command(&["events"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = containerd.run(&[], "c1", &["echo", "hello"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");
    assert_eq!(output.status.code(), Some(0));
    // One that ends at once has started before.
    let output = containerd.run(&[], "c2", &["sh", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7), "{}", containerd.log());
    let output = containerd.run(&["--snapshotter", "native"], "c3", &["hostname"]);
    assert_eq!(output.status.code(), Some(0), "{}", containerd.log());
    watched.kill().unwrap();
    let told = watched.wait_with_output().unwrap().stdout;
    let told = String::from_utf8(told).unwrap();
    for id in ["c1", "c2", "c3"] {
        let topics: Vec<_> = told
            .lines()
            .filter(|line| line.contains(&format!("\"container_id\":\"{id}\"")))
            .filter_map(|line| {
                line.split_whitespace()
                    .find(|word| word.starts_with("/tasks/"))
            })
            .collect();
        let expected = [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exit",
            "/tasks/delete",
        ];
        assert_eq!(topics, expected, "{told}");
    }
}

#[test]
fn a_task_is_paused_measured_updated_and_killed() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    containerd.begin(&[], "c1", &["sleep", "1000"]);
    assert_eq!(containerd.state("c1").as_deref(), Some("RUNNING"));
    let shim = containerd.shim("c1");
    let listed = containerd.done(&["task", "ps", "c1"]);
    assert!(
        listed.contains(&shim.as_raw_nonzero().to_string()),
        "{listed}"
    );
    // What the guest knows of them is beside it.
    for told in ["\"guest_pid\":", "\"args\":\"sleep 1000\""] {
        assert!(listed.replace('\\', "").contains(told), "{listed}");
    }
    let used = containerd.done(&["task", "metrics", "c1"]);
    assert!(used.contains("memory"), "{used}");
    containerd.done(&["task", "pause", "c1"]);
    assert_eq!(containerd.state("c1").as_deref(), Some("PAUSED"));
    containerd.refused(&["task", "pause", "c1"]);
    containerd.done(&["task", "resume", "c1"]);
    assert_eq!(containerd.state("c1").as_deref(), Some("RUNNING"));
    let error = containerd.refused(&["task", "rm", "c1"]);
    assert!(error.contains("running"), "{error}");
    let error = containerd.refused(&[
        "run",
        "--detach",
        "--runtime",
        super::containerd::RUNTIME,
        super::image::NAME,
        "c1",
        "true",
    ]);
    assert!(error.contains("already exists"), "{error}");
    containerd.remove("c1");
    assert_eq!(containerd.state("c1"), None);
}

#[test]
fn a_task_that_runs_out_of_memory_is_told_of() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    let events = containerd.dir("events").join("told");
    let file = std::fs::File::create(&events).unwrap();
    let mut watched = containerd
        .command(&["events"])
        .stdout(Stdio::from(file))
        .spawn()
        .unwrap();
    let limit = ["--memory-limit", "16777216"];
    let output = containerd.run(
        &limit,
        "c1",
        &["dd", "if=/dev/zero", "of=/dev/null", "bs=100M"],
    );
    assert_eq!(output.status.code(), Some(137), "{}", containerd.log());
    let told = || std::fs::read_to_string(&events).unwrap();
    containerd.wait_for("the news of memory", || told().contains("/tasks/oom"));
    watched.kill().unwrap();
    watched.wait().unwrap();
}

#[test]
fn ids_may_be_as_long_as_containerd_has_them() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    let id = format!("a.b_c-{}", "d".repeat(70));
    assert_eq!(id.len(), 76);
    let output = containerd.run(&[], &id, &["echo", "long"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "long\n",
        "{}",
        containerd.log()
    );
}

#[test]
fn what_cannot_be_made_is_refused_and_leaves_nothing() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    let output = containerd.run(
        &["--mount", "type=bind,src=/does/not/exist,dst=/m"],
        "c1",
        &["true"],
    );
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("/does/not/exist"), "{error}");
    assert_eq!(containerd.state("c1"), None);
    let output = containerd.run(&[], "c1", &["/no/such/program"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("/no/such/program"), "{error}");
    // It has ended by then, so that its client could remove it at once.
    assert_eq!(containerd.state("c1"), None);
    // The name is free again.
    let output = containerd.run(&[], "c1", &["true"]);
    assert_eq!(output.status.code(), Some(0), "{}", containerd.log());
}
