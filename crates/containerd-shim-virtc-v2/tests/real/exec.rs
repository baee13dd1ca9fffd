//! Processes that are added to a task.

use std::io::Write;
use std::process::Stdio;

use super::Containerd;

/// How many execs one task sees here, and in the soak.
fn count() -> usize {
    let count = std::env::var("VIRTC_TEST_EXECS").ok();
    count.and_then(|text| text.parse().ok()).unwrap_or(30)
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
    // The id of one that is over can be used again.
    let output = containerd.exec("c1", "e1", &["echo", "again"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "again\n");
    containerd.remove("c1");
}

#[test]
fn many_execs_leave_nothing_in_the_shim() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    containerd.begin(&[], "c1", &["sleep", "1000"]);
    let shim = containerd.shim("c1").as_raw_nonzero();
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{shim}/fd"))
            .unwrap()
            .count()
    };
    let threads = || {
        std::fs::read_dir(format!("/proc/{shim}/task"))
            .unwrap()
            .count()
    };
    let run = |number: usize| {
        let output = containerd.exec("c1", &format!("e{number}"), &["true"]);
        assert!(output.status.success(), "{}", containerd.log());
    };
    run(0);
    let before = (descriptors(), threads());
    for number in 1..=count() {
        run(number);
    }
    containerd.wait_for("the end of what the execs had", || {
        descriptors() <= before.0 && threads() <= before.1
    });
    containerd.remove("c1");
}
