//! What other processes do with a running container: exec, ps, kill, pause, state.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use test_vm::{Host, Running};

use super::host;

/// A throw-away machine called `box` whose command waits for the end of its input.
fn running(host: &Host) -> Running {
    let mut run = host.start(["run", "--name", "box", "--", "cat"]);
    run.wait_until("a running container", |_| {
        (status(host) == "running").then_some(())
    });
    run
}

fn status(host: &Host) -> String {
    let state = host.virtc(["state", "box"]);
    let value: serde_json::Value = serde_json::from_str(&state.out()).unwrap_or_default();
    value["status"].as_str().unwrap_or_default().to_owned()
}

fn exec(host: &Host, args: &[&str]) -> test_vm::Outcome {
    host.virtc(["exec"].iter().chain(args))
}

#[test]
pub(super) fn a_process_is_added_with_its_streams_and_its_exit_code() {
    let host = host();
    let run = running(&host);
    let both = exec(
        &host,
        &["box", "sh", "-c", "echo out; echo err >&2; exit 7"],
    )
    .expect_code(7);
    assert_eq!(
        (both.out().as_str(), both.err().as_str()),
        ("out\n", "err\n")
    );

    let mut wc = host.start(["exec", "box", "wc", "-c"]);
    wc.feed(vec![b'x'; 1_000_000]);
    assert_eq!(wc.wait().expect_code(0).out(), "1000000\n");

    exec(&host, &["box", "sh", "-c", "kill -TERM $$"]).expect_code(143);
    let before = Instant::now();
    exec(&host, &["box", "no-such-command"])
        .expect_code(127)
        .expect_err(&["no-such-command"]);
    assert!(before.elapsed() < Duration::from_secs(10));
    exec(&host, &["box", "/etc"]).expect_code(126);
    // The end of its input is the end of the container, and of the machine.
    run.wait().expect_code(0);
}

#[test]
fn flags_of_exec_change_its_process_and_not_the_container() {
    let host = host();
    let run = running(&host);
    let script = "echo $A; pwd; id -u; id -g; grep CapEff /proc/self/status | cut -f2";
    let flags = ["-e", "A=b c", "--cwd", "/usr/lib", "-u", "65534:33"];
    let outcome = exec(&host, &[&flags[..], &["box", "sh", "-c", script]].concat());
    assert_eq!(
        outcome.expect_code(0).out(),
        "b c\n/usr/lib\n65534\n33\n0000000000000000\n"
    );
    // It is in the container, with the container's filter of system calls.
    let inside = "hostname; grep -c '^Seccomp:.2' /proc/self/status; ps -e | grep -c ' cat$'";
    let outcome = exec(&host, &["box", "sh", "-c", inside]);
    assert_eq!(outcome.expect_code(0).out(), "box\n1\n1\n");
    run.wait().expect_code(0);
}

#[test]
fn ps_shows_what_the_guest_knows_and_kill_ends_it() {
    let host = host();
    let run = running(&host);
    let ps = host.virtc(["ps", "box"]).expect_code(0).out();
    assert!(ps.lines().any(|line| line.ends_with(" cat")), "{ps}");
    host.virtc(["kill", "box", "SIGKILL"]).expect_code(0);
    run.wait().expect_code(137);
}

#[test]
fn a_paused_container_stands_still_until_it_is_resumed() {
    let host = host();
    let run = running(&host);
    host.virtc(["pause", "box"]).expect_code(0);
    assert_eq!(status(&host), "paused");
    host.virtc(["pause", "box"]).expect_code(1);
    exec(&host, &["box", "true"])
        .expect_code(255)
        .expect_err(&["paused"]);
    host.virtc(["resume", "box"]).expect_code(0);
    assert_eq!(status(&host), "running");
    exec(&host, &["box", "true"]).expect_code(0);
    run.wait().expect_code(0);
}

#[test]
fn a_process_ends_with_its_machine_and_that_is_an_error() {
    let host = host();
    let run = running(&host);
    let mut sleep = host.start(["exec", "box", "sleep", "1000"]);
    sleep.wait_until("the added process", |_| {
        let ps = host.virtc(["ps", "box"]).out();
        ps.contains("sleep 1000").then_some(())
    });
    run.signal(Signal::KILL);
    let before = Instant::now();
    sleep.wait().expect_code(255).expect_err(&["box", "ended"]);
    assert!(before.elapsed() < Duration::from_secs(4));
    run.wait().expect_code(137);
    host.virtc(["gc"]).expect_code(0);
}

#[test]
fn what_is_not_there_is_named() {
    let host = host();
    exec(&host, &["nobody", "true"])
        .expect_code(255)
        .expect_err(&["container nobody does not exist"]);
    for command in ["ps", "state", "kill", "pause", "resume"] {
        host.virtc([command, "nobody"])
            .expect_code(1)
            .expect_err(&["container nobody does not exist"]);
    }
    exec(&host, &["nobody"]).expect_code(2);
}
