//! How a command ends, and how virtc tells it.

use std::time::{Duration, Instant};

use super::{busybox_root, host};

#[test]
pub(super) fn the_guests_kernel_is_another_one() {
    let host = host();
    let outcome = host.run(&["-q"], &["uname", "-r"]).expect_code(0);
    let own = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(!outcome.out().trim().is_empty());
    assert_ne!(outcome.out(), own);
    assert_eq!(outcome.err(), "");
}

#[test]
pub(super) fn an_exit_code_is_the_commands_own() {
    host().run(&[], &["sh", "-c", "exit 7"]).expect_code(7);
}

#[test]
pub(super) fn a_signal_is_128_and_its_number() {
    host()
        .run(&[], &["sh", "-c", "kill -TERM $$"])
        .expect_code(143);
}

#[test]
fn a_real_time_signal_is_128_and_its_number() {
    host()
        .run(&[], &["bash", "-c", "kill -RTMIN+3 $$"])
        .expect_code(128 + 37);
}

#[test]
pub(super) fn a_killed_command_is_137_without_a_word_about_memory() {
    let outcome = host()
        .run(&[], &["sh", "-c", "kill -9 $$"])
        .expect_code(137);
    assert!(!outcome.err().contains("memory"), "{}", outcome.err());
}

#[test]
pub(super) fn a_command_that_is_not_there_is_127_at_once() {
    let host = host();
    let outcome = host
        .run(&["--timeline"], &["no-such-command"])
        .expect_code(127);
    let outcome = outcome.expect_err(&["no-such-command", "not found"]);
    assert_eq!(outcome.out(), "");
}

#[test]
pub(super) fn a_file_that_is_no_program_is_126() {
    host()
        .run(&[], &["/etc/passwd"])
        .expect_code(126)
        .expect_err(&["/etc/passwd"]);
}

#[test]
pub(super) fn a_hidden_command_is_named_with_the_show_that_brings_it() {
    use std::os::unix::fs::PermissionsExt;
    let mut host = host();
    let tools = host.dir("tools");
    let tool = tools.join("only-here");
    std::fs::write(&tool, "#!/bin/sh\necho shown\n").unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    host.env("PATH", format!("{}:/usr/bin:/bin", tools.display()));
    let show = format!("--show {}", tools.display());
    host.run(&[], &["only-here"])
        .expect_code(127)
        .expect_err(&["only-here", &show]);
    let tools = tools.to_str().unwrap().to_owned();
    assert_eq!(
        host.run(&["--show", &tools], &["only-here"])
            .expect_code(0)
            .out(),
        "shown\n"
    );
}

#[test]
pub(super) fn a_time_limit_is_124_and_a_stubborn_command_is_killed() {
    let mut host = host();
    host.env("VIRTC_LIMITS_KILL_AFTER_TIMEOUT_MS", "500");
    let script = "trap '' TERM; echo began; while :; do sleep 1; done";
    let outcome = host
        .run(&["--timeout", "1"], &["sh", "-c", script])
        .expect_code(124);
    assert_eq!(outcome.out(), "began\n");
}

#[test]
pub(super) fn a_polite_command_ends_at_its_time_limit() {
    let began = Instant::now();
    host()
        .run(&["--timeout", "0.5"], &["sleep", "600"])
        .expect_code(124);
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn what_runs_out_of_memory_is_137_and_a_line_that_names_the_flag() {
    let eater = "s = bytearray(); \nwhile True: s += bytearray(16 << 20)";
    let outcome = host()
        .run(&["-m", "256m"], &["python3", "-c", eater])
        .expect_code(137);
    let outcome = outcome.expect_err(&["memory", "-m SIZE"]);
    assert_eq!(outcome.err().lines().count(), 1, "{}", outcome.err());
}

#[test]
fn a_kept_sandbox_has_its_state_and_logs_until_it_is_deleted() {
    let host = host();
    let root = busybox_root(&host);
    let flags = [
        "--keep",
        "--name",
        "kept",
        "--rootfs",
        root.to_str().unwrap(),
    ];
    host.run(&flags, &["sh", "-c", "exit 3"]).expect_code(3);
    let listed = host.virtc(["list", "-f", "json"]).expect_code(0).out();
    assert!(
        listed.contains("\"id\": \"kept\"") && listed.contains("\"exit_code\": 3"),
        "{listed}"
    );
    assert!(listed.contains("\"status\": \"stopped\""), "{listed}");
    host.virtc(["logs", "kept"]).expect_code(0);
    // What is kept on purpose is not removed by others.
    host.virtc(["gc"]).expect_code(0);
    host.run(&["--name", "kept"], &["true"])
        .expect_code(125)
        .expect_err(&["kept", "exists"]);
    host.virtc(["delete", "kept"]).expect_code(0);
    host.virtc(["delete", "kept"])
        .expect_code(1)
        .expect_err(&["does not exist"]);
}
