//! Pods of Debian's podman: several containers in one machine.

use super::host;
use super::podman::Podman;

#[test]
fn members_of_a_pod_share_a_machine_and_what_pods_share() {
    let host = host();
    let podman = Podman::new(&host);
    pod(&podman);
    assert_eq!(podman.done(&["exec", "m1", "/bin/hostname"]), "inside\n");
    let write = ": > /dev/mqueue/queue; echo data > /dev/shm/memory";
    podman.done(&["exec", "m1", "/bin/sh", "-c", write]);
    let read = "ls /dev/mqueue; cat /dev/shm/memory; /bin/hostname";
    let read = podman.done(&["exec", "m2", "/bin/sh", "-c", read]);
    assert_eq!(read, "queue\ndata\ninside\n");
    let top = podman.done(&["top", "m2", "-eo", "pid,args"]);
    assert_eq!(top.lines().count(), 2, "{top}");
    assert!(top.contains("1 /bin/sleep 100000"), "{top}");
    let format = "{{.MemUsage}}";
    let stats = podman.done(&["pod", "stats", "--no-stream", "--format", format, "p1"]);
    // Below a heading, the infra container and two members.
    let used: Vec<_> = stats.lines().skip(1).collect();
    assert_eq!(used.len(), 3, "{stats}");
    assert!(used.iter().all(|line| !line.starts_with('0')), "{stats}");

    podman.done(&["pod", "stop", "--time", "0", "p1"]);
    podman.done(&["pod", "start", "p1"]);
    assert_eq!(
        podman.done(&["exec", "m2", "/bin/echo", "again"]),
        "again\n"
    );
    podman.done(&["pod", "rm", "--force", "--time", "0", "p1"]);
    assert_eq!(podman.done(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn who_is_in_no_pod_joins_no_machine() {
    let host = host();
    let podman = Podman::new(&host);
    let none = ["--network", "none"];
    let first = ["--detach", "--name", "c1", "box", "/bin/sleep", "1000"];
    podman.done(&[&["run"], &none[..], &first].concat());
    let second = ["--rm", "--ipc", "container:c1", "box", "/bin/true"];
    let output = podman.output(&[&["run"], &none[..], &second].concat(), "");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        err.contains("ipc namespace") && err.contains("not supported"),
        "{err}"
    );
    podman.done(&["rm", "--force", "--time", "0", "c1"]);
}

fn pod(podman: &Podman<'_>) {
    let create = [
        "pod",
        "create",
        "--name",
        "p1",
        "--network",
        "none",
        "--hostname",
        "inside",
    ];
    let infra = [
        "--infra-image",
        "box",
        "--infra-command",
        "/bin/sleep 100000",
    ];
    podman.done(&[&create[..], &infra].concat());
    for name in ["m1", "m2"] {
        let member = ["--pod", "p1", "--name", name, "box", "/bin/sleep", "100000"];
        podman.done(&[&["run", "--detach"], &member[..]].concat());
    }
}

#[test]
fn engines_find_the_container_and_nothing_of_the_host_by_its_pid() {
    let host = host();
    let podman = Podman::new(&host);
    let shown = host.dir("shown");
    std::fs::write(shown.join("file"), "shared\n").unwrap();
    let volume = format!("{}:/data:ro", shown.display());
    let run = [
        "run",
        "--detach",
        "--name",
        "c1",
        "--network",
        "none",
        "-v",
        &volume,
    ];
    podman.done(&[&run[..], &["box", "/bin/sleep", "1000"]].concat());
    let at = |path: &str| host.cwd().join(path).display().to_string();

    std::fs::write(at("in"), "copied\n").unwrap();
    podman.done(&["cp", &at("in"), "c1:/etc/in"]);
    assert_eq!(
        podman.done(&["exec", "c1", "/bin/cat", "/etc/in"]),
        "copied\n"
    );
    // Where it would be if the pid led to the host.
    assert!(!std::path::Path::new("/etc/in").exists());
    podman.done(&["cp", "c1:/etc/marker", &at("out")]);
    assert_eq!(
        std::fs::read_to_string(at("out")).unwrap(),
        "made by the test\n"
    );
    podman.done(&["cp", "c1:/data/file", &at("out")]);
    assert_eq!(std::fs::read_to_string(at("out")).unwrap(), "shared\n");
    assert!(
        !podman
            .output(&["cp", &at("in"), "c1:/data/in"], "")
            .status
            .success()
    );

    // A link that the container made leads to its own files.
    podman.done(&[
        "exec",
        "c1",
        "/bin/busybox",
        "ln",
        "-s",
        &at("in"),
        "/etc/link",
    ]);
    assert!(
        !podman
            .output(&["cp", "c1:/etc/link", &at("out")], "")
            .status
            .success()
    );

    let top = podman.done(&["top", "c1", "pid", "args"]);
    assert_eq!(top.lines().count(), 2, "{top}");
    let pid = podman.done(&["inspect", "--format", "{{.State.Pid}}", "c1"]);
    let root = std::path::PathBuf::from(format!("/proc/{}/root", pid.trim()));
    assert!(root.join("etc/marker").exists() && !root.join("usr").exists());
    podman.done(&["rm", "--force", "--time", "0", "c1"]);
}
