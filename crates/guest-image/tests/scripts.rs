//! What the set-up scripts share.
#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

use std::path::Path;
use std::process::{Command, Output};

/// Runs a script that has read `scripts/step.sh`.
fn run(script: &str) -> Output {
    let step = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/step.sh");
    let script = format!(". {}; set -eu; {script}", step.display());
    Command::new("sh").args(["-c", &script]).output().unwrap()
}

#[test]
fn what_runs_quietly_and_fails_is_heard() {
    let failed = run("quietly sh -c 'echo why; exit 7'; echo on");
    assert_eq!(failed.status.code(), Some(7));
    assert_eq!(
        (failed.stdout.as_slice(), failed.stderr.as_slice()),
        (&b""[..], &b"why\n"[..])
    );
    let told = run("quietly false || fail 'it is broken' 'mend it'");
    assert_eq!(told.status.code(), Some(1));
    let said = String::from_utf8(told.stderr).unwrap();
    assert_eq!(said, "error: it is broken\nhint: mend it\n");
    let done = run("quietly echo much; echo on");
    assert!(done.status.success());
    assert_eq!(
        (done.stdout.as_slice(), done.stderr.as_slice()),
        (&b"on\n"[..], &b""[..])
    );
}
