//! Signals to virtc, without a terminal.

use std::io::Read;
use std::process::Stdio;

use rustix::process::Signal;

use super::host;

/// Starts a script that says `up`, waits for that, sends the signals, and gives output and code.
fn after_up(flags: &[&str], script: &str, signals: &[Signal]) -> (String, i32) {
    let host = host();
    let mut args = vec!["run", "-q"];
    args.extend(flags);
    args.extend(["--", "bash", "-c", script]);
    let mut command = host.command(args);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut up = [0; 3];
    stdout.read_exact(&mut up).unwrap();
    assert_eq!(&up, b"up\n");
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    for signal in signals {
        rustix::process::kill_process(pid, *signal).unwrap();
    }
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let status = child.wait().unwrap();
    (rest, status.code().unwrap_or(-1))
}

#[test]
pub(super) fn a_signal_is_the_commands_to_handle() {
    for (signal, name) in [
        (Signal::INT, "INT"),
        (Signal::TERM, "TERM"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
    ] {
        let script =
            format!("trap 'echo got {name}; exit 5' {name}; echo up; while :; do sleep 0.1; done");
        assert_eq!(
            after_up(&[], &script, &[signal]),
            (format!("got {name}\n"), 5)
        );
    }
}

#[test]
pub(super) fn a_command_that_handles_nothing_ends_by_the_signal() {
    let (rest, code) = after_up(&[], "echo up; exec sleep 600", &[Signal::TERM]);
    assert_eq!((rest.as_str(), code), ("", 143));
}

#[test]
pub(super) fn a_second_interrupt_ends_the_machine() {
    let script = "trap '' INT TERM; echo up; while :; do sleep 1; done";
    let (_, code) = after_up(&[], script, &[Signal::INT, Signal::TERM]);
    assert_eq!(code, 143);
}

#[test]
fn an_interrupt_during_the_boot_ends_it_at_once() {
    let host = host();
    let mut running = host.start(["run", "--", "true"]);
    running.wait_for_process("qemu-system");
    running.signal(Signal::INT);
    running.wait().expect_code(130);
}
