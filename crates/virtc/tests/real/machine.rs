//! The machine: its size, its confinement, its clock.

use super::{busybox_root, host};

#[test]
fn memory_and_processors_are_what_was_asked_for() {
    let script = "nproc; awk '/MemTotal/{print int($2/1024)}' /proc/meminfo";
    let outcome = host()
        .run(&["-m", "512m", "--cpus", "1"], &["sh", "-c", script])
        .expect_code(0);
    let numbers: Vec<u64> = outcome.out().lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(numbers[0], 1);
    assert!((400..=512).contains(&numbers[1]), "{numbers:?}");
}

#[test]
fn the_clock_is_the_hosts() {
    let before = std::time::SystemTime::now();
    let outcome = host().run(&[], &["date", "+%s.%N"]).expect_code(0);
    let after = std::time::SystemTime::now();
    let seconds: f64 = outcome.out().trim().parse().unwrap();
    let unix = |time: std::time::SystemTime| {
        time.duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64()
    };
    assert!((unix(before)..=unix(after)).contains(&seconds), "{seconds}");
}

#[test]
fn a_clock_that_goes_wrong_is_put_right() {
    let mut host = host();
    host.env("VIRTC_LIMITS_CLOCK_MS", "300");
    let script = "date -s @1000000000 >/dev/null && until test $(date +%s) -gt 1100000000; do sleep 0.1; done; date +%s";
    let outcome = host.run(&["--cap-add", "SYS_TIME"], &["sh", "-c", script]);
    let outcome = outcome.expect_code(0);
    let seconds: u64 = outcome.out().trim().parse().unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!((now - 5..=now).contains(&seconds), "{seconds}, {now}");
}

#[test]
fn there_is_a_loopback_and_no_other_network() {
    let script = "cat /sys/class/net/lo/operstate; ls /sys/class/net";
    let outcome = host().run(&[], &["sh", "-c", script]).expect_code(0);
    assert_eq!(outcome.out().lines().last(), Some("lo"));
    let script = "import socket; s = socket.create_server(('127.0.0.1', 0)); \
                  socket.create_connection(s.getsockname()); print('up')";
    assert_eq!(
        host()
            .run(&[], &["python3", "-c", script])
            .expect_code(0)
            .out(),
        "up\n"
    );
}

#[test]
fn a_system_call_of_the_hosts_administrator_is_refused() {
    let script = "import ctypes, os; r = ctypes.CDLL(None, use_errno=True).syscall(246, 0, 0, 0, 0); \
                  print(r, os.strerror(ctypes.get_errno()))";
    let outcome = host().run(&[], &["python3", "-c", script]).expect_code(0);
    assert_eq!(outcome.out(), "-1 Operation not permitted\n");
}

#[test]
fn a_kernel_parameter_reaches_the_kernel() {
    let host = host();
    let root = busybox_root(&host);
    let flags = [
        "--rootfs",
        root.to_str().unwrap(),
        "--kernel-param",
        "virtc.test=1",
    ];
    let outcome = host.run(&flags, &["cat", "/proc/cmdline"]).expect_code(0);
    assert!(outcome.out().contains("virtc.test=1"), "{}", outcome.out());
}

#[test]
fn the_processes_of_a_machine_have_no_rights() {
    let host = host();
    let mut running = host.start(["run", "-q", "--", "sh", "-c", "echo up; cat"]);
    running.wait_for_process("qemu-system");
    let stdin = running.stdin();
    // All of its processes have settled when the command runs.
    running.wait_until("a running container", |_| {
        let listed = host.virtc(["list", "-f", "json"]).out();
        listed.contains("\"status\": \"running\"").then_some(())
    });
    let processes = running.processes();
    assert!(processes.len() >= 4, "{processes:?}");
    for process in processes.iter().filter(|process| process.state != 'Z') {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name)).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().to_owned()
        };
        assert_eq!(field("NoNewPrivs:"), "1", "{process:?}");
        let user_share = process.command.contains("--fd=") && field("Uid:") == "0";
        if !user_share {
            assert_ne!(field("Uid:"), "0", "{process:?}");
            assert_eq!(field("CapEff:"), "0000000000000000", "{process:?}");
        }
        if process.command.contains("qemu") {
            assert_eq!(field("Seccomp:"), "2", "{process:?}");
        }
    }
    drop(stdin);
    running.wait().expect_code(0);
}

#[test]
fn the_timeline_has_every_point_in_its_order() {
    let outcome = host().run(&["--timeline"], &["echo", "hi"]).expect_code(0);
    let points: Vec<_> = outcome
        .err()
        .lines()
        .filter_map(|line| {
            let name = line.split_once(" ms ")?.1.trim_start();
            let name = name.split_once("  ")?.1;
            (!name.starts_with(' ')).then(|| name.to_owned())
        })
        .collect();
    assert_eq!(
        points,
        [
            "exec", "spawned", "ready", "started", "output", "ended", "exit"
        ]
    );
}
