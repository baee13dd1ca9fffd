//! Thirty uses of containerd's client, by two users at once.

use std::fs;
use std::path::Path;

use super::Containerd;
use super::image::NAME;

/// What a container of its own prints, with these flags.
const RUNS: [(&str, &[&str], &str, &str, i32); 10] = [
    ("plain", &[], "echo hello", "hello\n", 0),
    ("code", &[], "exit 7", "", 7),
    ("unseen", &["--null-io"], "echo hello", "", 0),
    ("env", &["--env", "NAME=value"], "echo $NAME", "value\n", 0),
    ("cwd", &["--cwd", "/tmp"], "pwd", "/tmp\n", 0),
    (
        "read-only",
        &["--read-only"],
        "echo x >/etc/x 2>/dev/null || echo refused",
        "refused\n",
        0,
    ),
    (
        "limits",
        &["--memory-limit", "33554432"],
        "exec dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null",
        "",
        137,
    ),
    (
        "rights",
        &["--cap-drop", "CAP_CHOWN", "--allow-new-privs"],
        "grep NoNewPrivs: /proc/self/status; busybox chown 1:1 /tmp 2>/dev/null || echo refused",
        "NoNewPrivs:\t0\nrefused\n",
        0,
    ),
    (
        "filtered",
        &["--seccomp"],
        "grep Seccomp: /proc/self/status",
        "Seccomp:\t2\n",
        0,
    ),
    (
        "native",
        &["--snapshotter", "native", "--label", "of=test"],
        "ls -d /bin",
        "/bin\n",
        0,
    ),
];

/// The uses of one user, whose names begin so.
fn thirty_uses(containerd: &Containerd, user: &str) {
    // 1 to 10.
    for (name, flags, script, out, code) in RUNS {
        let output = containerd.run(flags, &format!("{user}-{name}"), &["sh", "-c", script]);
        let said = (
            String::from_utf8_lossy(&output.stdout),
            output.status.code(),
        );
        assert_eq!(
            said,
            (out.into(), Some(code)),
            "{name}: {}",
            containerd.log()
        );
    }

    // 11: a directory and a file of the host, one of them to be read alone.
    let shared = containerd.dir(&format!("{user}-shared"));
    fs::write(shared.join("file"), "mine\n").unwrap();
    let shown = shared.display();
    let mounts = [
        format!("type=bind,src={shown},dst=/mnt,options=rbind:rw"),
        format!("type=bind,src={shown}/file,dst=/etc/shown,options=rbind:ro"),
    ];
    let script =
        "cat /etc/shown; echo new >/mnt/new; echo x >/etc/shown 2>/dev/null || echo refused";
    let flags = ["--mount", &mounts[0], "--mount", &mounts[1]];
    let output = containerd.run(&flags, &format!("{user}-mounts"), &["sh", "-c", script]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "mine\nrefused\n");
    assert_eq!(fs::read_to_string(shared.join("new")).unwrap(), "new\n");

    // 12 to 30: one that stays.
    let id = &format!("{user}-stays");
    let pid_file = shared.join("pid");
    let pid_file = pid_file.display().to_string();
    let log = shared.join("log");
    let log_uri = format!("file://{}", log.display());
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    let flags = ["--pid-file", &pid_file, "--log-uri", &log_uri];
    containerd.begin(&flags, id, &["sh", "-c", script]);
    let logged = || fs::read_to_string(&log).unwrap_or_default();
    containerd.wait_for("the first line", || logged() == "up\n");
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert!(Path::new("/proc").join(pid.trim()).exists());
    assert_eq!(containerd.state(id).as_deref(), Some("RUNNING"));
    assert!(containerd.done(&["task", "ps", id]).contains("guest_pid"));
    let out = |exec: &str, flags: &[&str], command: &[&str]| {
        let exec_id = ["task", "exec", "--exec-id", exec];
        containerd.done(&[&exec_id[..], flags, &[id], command].concat())
    };
    assert_eq!(out("e1", &[], &["echo", "in"]), "in\n");
    assert_eq!(out("e2", &["--cwd", "/etc"], &["pwd"]), "/etc\n");
    assert_eq!(out("e3", &["--user", "1000:1000"], &["id", "-u"]), "1000\n");
    let output = containerd.exec(id, "e4", &["sh", "-c", "exit 9"]);
    assert_eq!(output.status.code(), Some(9));
    let refused = containerd.exec(id, "e5", &["/no/such/program"]);
    assert!(!refused.status.success());
    containerd.done(&[
        "task",
        "exec",
        "--exec-id",
        "e6",
        "--detach",
        id,
        "sleep",
        "100",
    ]);
    containerd.wait_for("the process that was added", || {
        containerd.done(&["task", "ps", id]).contains("sleep 100")
    });
    let all = containerd.done(&["task", "metrics", "--format", "json", id]);
    assert!(all.contains("memory"), "{all}");
    containerd.done(&["task", "pause", id]);
    assert_eq!(containerd.state(id).as_deref(), Some("PAUSED"));
    containerd.done(&["task", "resume", id]);
    assert_eq!(out("e7", &[], &["echo", "on"]), "on\n");
    assert!(containerd.done(&["container", "info", id]).contains(NAME));
    assert!(
        containerd
            .done(&["container", "ls", "-q"])
            .lines()
            .any(|line| line == id)
    );
    containerd.refused(&["task", "rm", id]);
    containerd.refused(&["task", "checkpoint", id]);
    containerd.done(&["task", "kill", "--signal", "TERM", id]);
    containerd.wait_for("its end", || {
        containerd.state(id).as_deref() == Some("STOPPED")
    });
    assert_eq!(logged(), "up\nbye\n");
    let removed = containerd.ctr(&["task", "rm", id]).stderr;
    let removed = String::from_utf8_lossy(&removed);
    assert!(removed.contains("exit code 3"), "{removed}");
    // Another task of the same container.
    containerd.done(&["task", "start", "--detach", "--null-io", id]);
    assert_eq!(out("e8", &[], &["echo", "again"]), "again\n");
    containerd.remove(id);
    let left = containerd.done(&["container", "ls", "-q"]);
    assert!(!left.lines().any(|line| line.starts_with(user)), "{left}");
}

#[test]
fn thirty_uses_of_the_client_by_two_at_once() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    std::thread::scope(|scope| {
        for user in ["one", "two"] {
            let containerd = &containerd;
            scope.spawn(move || thirty_uses(containerd, user));
        }
    });
}
