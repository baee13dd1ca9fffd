//! `kill -9` of whatever takes part: the others end, and virtc says what died.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use test_vm::{Host, Running};

use super::{host, is_dead};

/// A machine whose command runs, and its stdin.
fn running(host: &Host) -> (Running, std::process::ChildStdin) {
    let mut running = host.start(["run", "-q", "--", "cat"]);
    let stdin = running.stdin();
    running.wait_for_process("qemu-system");
    running.wait_until("a running container", |_| {
        let listed = host.virtc(["list", "-f", "json"]).out();
        listed.contains("\"status\": \"running\"").then_some(())
    });
    (running, stdin)
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn a_part_is_killed(part: &str, named: &str) {
    let host = host();
    let (mut virtc, _stdin) = running(&host);
    let victim = virtc.wait_for_process(part);
    let killed = Instant::now();
    kill(victim.pid);
    let outcome = virtc.wait().expect_code(125).expect_err(&[named]);
    assert!(
        killed.elapsed() < Duration::from_secs(2),
        "{:?}\n{}",
        killed.elapsed(),
        outcome.err()
    );
}

#[test]
fn qemu() {
    a_part_is_killed("qemu-system", "SIGKILL");
}

#[test]
fn a_share() {
    a_part_is_killed("--shared-dir", "share of the");
}

#[test]
fn the_vsock_device_process() {
    a_part_is_killed("vsock-device", "vsock device process");
}

#[test]
fn virtc_itself() {
    let host = host();
    let (virtc, _stdin) = running(&host);
    kill(virtc.pid());
    assert_eq!(virtc.wait().code(), 128 + 9);
    let left = host.left();
    assert!(is_dead(&left), "{left:?}");
    // What is left on disk is shown for what it is, and removed by whoever comes next.
    let listed = host.virtc(["list", "-f", "json"]).expect_code(0).out();
    assert!(listed.contains("\"status\": \"stopped\""), "{listed}");
    let outcome = host.virtc(["gc"]).expect_code(0);
    assert!(outcome.out().contains("removed"), "{}", outcome.out());
}

#[test]
fn a_running_sandbox_is_deleted_by_force_alone() {
    let host = host();
    let (virtc, _stdin) = running(&host);
    let name = host.virtc(["list", "-q"]).out().trim().to_owned();
    host.virtc(["delete", &name])
        .expect_code(1)
        .expect_err(&["running", "--force"]);
    host.virtc(["delete", "--force", &name]).expect_code(0);
    virtc.wait();
}
