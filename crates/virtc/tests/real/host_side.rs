//! What of a container is on the host: its cgroup, the namespaces of what stands for it, its
//! hooks, its end, and that pods find each other by it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_vm::Host;

use super::host;
use super::oci::bundle;

/// How long a container may take to get where it is going.
const LIMIT: Duration = Duration::from_secs(30);

/// Makes a container, or gives what `create` says against it. What it prints is in the file
/// `ID.out` of its bundle.
pub(super) fn try_create(host: &Host, directory: &Path, id: &str) -> Result<(), String> {
    let file = |name: &str| fs::File::create(directory.join(format!("{id}.{name}"))).unwrap();
    let status = host
        .command(["create", "--bundle", directory.to_str().unwrap(), id])
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("err"))
        .status()
        .unwrap();
    match status.success() {
        true => Ok(()),
        false => Err(fs::read_to_string(directory.join(format!("{id}.err"))).unwrap()),
    }
}

/// Makes a container; what it prints is in the file `ID.out` of its bundle.
pub(super) fn create(host: &Host, directory: &Path, id: &str) {
    if let Err(err) = try_create(host, directory, id) {
        panic!("{err}");
    }
}

pub(super) fn state(host: &Host, id: &str) -> Value {
    let state = host.virtc(["state", id]).expect_code(0);
    serde_json::from_str(&state.out()).unwrap()
}

pub(super) fn wait_until(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The directories of a cgroup in the hierarchies of this host.
pub(super) fn cgroups(path: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| matches!(fields[2], "cgroup" | "cgroup2"))
        .map(|fields| Path::new(fields[1]).join(path.trim_start_matches('/')))
        .filter(|directory| directory.exists())
        .collect()
}

#[test]
fn the_end_of_one_does_not_reach_another_of_its_name_below_another_root() {
    let (one, other) = (host(), host());
    for host in [&one, &other] {
        create(host, &bundle(host, &["/bin/sleep", "1000"], |_| {}), "c1");
        host.virtc(["start", "c1"]).expect_code(0);
    }
    one.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(state(&other, "c1")["status"], "running");
    let exec = other.virtc(["exec", "c1", "/bin/true"]);
    exec.expect_code(0);
    other.virtc(["delete", "--force", "c1"]).expect_code(0);
}

#[test]
fn a_container_has_its_cgroup_and_its_machine_another() {
    let host = host();
    let path = format!("/virtc-test-{}/box", std::process::id());
    let directory = bundle(&host, &["/bin/sleep", "1000"], |config| {
        config["linux"]["cgroupsPath"] = json!(path);
    });
    create(&host, &directory, "c1");
    host.virtc(["start", "c1"]).expect_code(0);
    let pid = state(&host, "c1")["pid"].as_i64().unwrap();
    let of = |pid: i64| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = of(pid);
    assert!(own.lines().all(|line| line.ends_with(&path)), "{own}");
    let directories = cgroups(&path);
    assert!(!directories.is_empty());
    for directory in &directories {
        let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap();
        assert_eq!(procs.trim(), pid.to_string(), "{}", directory.display());
    }
    // The VMM and the device processes are its children, and elsewhere.
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_threads = threads.map(|thread| {
        let children = thread.unwrap().path().join("children");
        fs::read_to_string(children).unwrap_or_default()
    });
    let children = of_threads.fold(children, |all, more| format!("{all} {more}"));
    let children: Vec<i64> = children
        .split_whitespace()
        .map(|child| child.parse().unwrap())
        .collect();
    assert!(children.len() >= 3, "{children:?}");
    for child in children {
        let its = of(child);
        assert!(its.contains("/virtcontainers/c1-"), "{its}");
    }
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(cgroups(&path), Vec::<PathBuf>::new());
    assert_eq!(
        cgroups(Path::new(&path).parent().unwrap().to_str().unwrap()),
        Vec::<PathBuf>::new()
    );
}

#[test]
fn hooks_of_the_host_run_in_their_order_with_the_state() {
    let host = host();
    let log = host.dir("hooks").join("log");
    let hook = |name: &str| {
        let script = format!(
            "{{ echo {name}; cat; echo; readlink /proc/self/ns/uts; }} >>{}",
            log.display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 10}])
    };
    let mut hooks = json!({});
    for name in [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ] {
        hooks[name] = hook(name);
    }
    let inside = "echo startContainer >/seen";
    hooks["startContainer"] =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", inside], "env": ["PATH=/bin"]}]);
    let directory = bundle(&host, &["/bin/sh", "-c", "cat /seen"], |config| {
        config["hooks"] = hooks;
        config["annotations"] = json!({"colour": "blue"});
    });
    create(&host, &directory, "c1");
    let pid = state(&host, "c1")["pid"].as_i64().unwrap();
    let uts = fs::read_link(format!("/proc/{pid}/ns/uts")).unwrap();
    assert_ne!(uts, fs::read_link("/proc/self/ns/uts").unwrap());
    host.virtc(["start", "c1"]).expect_code(0);
    wait_until("the container ends", || {
        state(&host, "c1")["status"] == "stopped"
    });
    let out = fs::read_to_string(directory.join("c1.out")).unwrap();
    assert_eq!(out, "startContainer\n");
    host.virtc(["delete", "c1"]).expect_code(0);

    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let runs: Vec<_> = lines.chunks(3).collect();
    let seen: Vec<_> = runs
        .iter()
        .map(|run| {
            let state: Value = serde_json::from_str(run[1]).unwrap();
            assert_eq!(state["id"], "c1");
            assert_eq!(state["annotations"]["colour"], "blue");
            assert_eq!(state["bundle"], directory.to_str().unwrap());
            (run[0], state["status"].as_str().unwrap().to_owned())
        })
        .collect();
    let expected = [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ];
    let expected: Vec<_> = expected
        .map(|(name, status)| (name, status.to_owned()))
        .into();
    assert_eq!(seen, expected);
    // Those that belong to the making see the container's names.
    assert_eq!(runs[0][2], uts.to_str().unwrap());
}

#[test]
fn a_hook_that_fails_leaves_no_container() {
    let mut host = host();
    let directory = bundle(&host, &["/bin/true"], |config| {
        config["hooks"] = json!({"createRuntime": [
            {"path": "/bin/sh", "args": ["sh", "-c", "echo not today >&2; exit 3"]}
        ]});
    });
    host.virtc(["create", "--bundle", directory.to_str().unwrap(), "c1"])
        .expect_code(1)
        .expect_err(&["createRuntime", "not today"]);
    host.virtc(["state", "c1"]).expect_code(1);
    host.expect_nothing_left();
}

#[test]
fn a_member_of_a_pod_shares_what_it_is_asked_to() {
    let host = host();
    let directory = bundle(&host, &["/bin/sleep", "1000"], |_| {});
    create(&host, &directory, "pod");
    host.virtc(["start", "pod"]).expect_code(0);
    let infra = state(&host, "pod")["pid"].as_i64().unwrap();
    let member = |config: &mut Value| {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": "pod",
        });
        let of = |kind: &str| format!("/proc/{infra}/ns/{kind}");
        config["linux"]["namespaces"] = json!([
            {"type": "mount"}, {"type": "pid"},
            {"type": "uts", "path": of("uts")}, {"type": "ipc", "path": of("ipc")},
            {"type": "network", "path": of("net")},
        ]);
    };
    let directory = bundle(&host, &["/bin/sleep", "1000"], member);
    create(&host, &directory, "c2");
    host.virtc(["start", "c2"]).expect_code(0);
    let seen = state(&host, "c2");
    assert_eq!(seen["sandbox"], "pod");
    let pid = seen["pid"].as_i64().unwrap();
    assert_ne!(pid, infra);
    for kind in ["uts", "ipc", "net"] {
        let of = |pid: i64| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(of(pid), of(infra), "{kind}");
    }
    let inside = |id: &str, kind: &str| {
        let path = format!("/proc/self/ns/{kind}");
        host.virtc(["exec", id, "/bin/busybox", "readlink", &path])
            .expect_code(0)
            .out()
    };
    for kind in ["uts", "ipc"] {
        assert_eq!(inside("c2", kind), inside("pod", kind), "{kind}");
    }
    assert_ne!(inside("c2", "pid"), inside("pod", "pid"));

    // Another machine's namespaces are nobody's here, and a sandbox that is not there is named.
    let elsewhere = bundle(&host, &["/bin/true"], |config| {
        member(config);
        config["linux"]["namespaces"][3]["path"] = json!("/proc/1/ns/ipc");
    });
    let bundle_of = |directory: &Path| directory.to_str().unwrap().to_owned();
    host.virtc(["create", "--bundle", &bundle_of(&elsewhere), "c3"])
        .expect_code(1)
        .expect_err(&["/proc/1/ns/ipc", "not supported"]);
    let lost = bundle(&host, &["/bin/true"], |config| {
        member(config);
        config["annotations"]["io.kubernetes.cri.sandbox-id"] = json!("nowhere");
        config["linux"]["namespaces"] = json!([{"type": "mount"}]);
    });
    host.virtc(["create", "--bundle", &bundle_of(&lost), "c4"])
        .expect_code(1)
        .expect_err(&["nowhere", "does not exist"]);

    // A member goes and comes; the end of the pod's own container is the end of all.
    host.virtc(["delete", "c2"]).expect_code(1);
    host.virtc(["delete", "--force", "c2"]).expect_code(0);
    let directory = bundle(&host, &["/bin/sleep", "1000"], member);
    create(&host, &directory, "c2");
    host.virtc(["start", "c2"]).expect_code(0);
    host.virtc(["kill", "pod", "KILL"]).expect_code(0);
    wait_until("the member ends with its pod", || {
        state(&host, "c2")["status"] == "stopped"
    });
    let listed = host.virtc(["list", "-q"]).expect_code(0).out();
    assert_eq!(listed, "c2\npod\n");
    host.virtc(["delete", "c2"]).expect_code(0);
    host.virtc(["delete", "pod"]).expect_code(0);
}

/// `virtc run ID` with this command.
fn run(host: &Host, flags: &[&str], args: &[&str]) -> Child {
    let directory = bundle(host, args, |_| {});
    let mut command = host.command(["run", "--bundle", directory.to_str().unwrap()]);
    command.args(flags).arg("c1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn a_bundle_is_run_to_its_end_and_leaves_nothing() {
    let mut host = host();
    let mut child = run(&host, &[], &["/bin/sh", "-c", "cat; exit 7"]);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(7));
    host.virtc(["state", "c1"]).expect_code(1);

    // Detached, what stands for it is ours now: this test is the reaper of orphans.
    let pid_file = host.dir("root").parent().unwrap().join("pid");
    let flags = ["--detach", "--pid-file", pid_file.to_str().unwrap()];
    let mut child = run(&host, &flags, &["/bin/sleep", "1000"]);
    assert!(child.wait().unwrap().success());
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert_eq!(state(&host, "c1")["status"], "running");
    host.virtc(["kill", "c1", "KILL"]).expect_code(0);
    let pid = rustix::process::Pid::from_raw(pid);
    let ended = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
    let (_, ended) = ended.unwrap().unwrap();
    // The signal of the guest's process is that of the one that stood for it.
    assert_eq!(ended.terminating_signal(), Some(9));
    assert_eq!(state(&host, "c1")["exitCode"], 137);
    host.virtc(["delete", "c1"]).expect_code(0);

    for (flags, said) in [
        (&["--memory", "1g", "c1"][..], "--memory"),
        (&["--detach", "--", "true"], "--detach"),
        (&["c1", "--", "true"], "before it"),
    ] {
        let mut args = vec!["run"];
        args.extend(flags);
        host.virtc(args).expect_err(&[said]);
    }
    host.expect_nothing_left();
}

#[test]
fn limits_change_while_it_runs_and_statistics_say_so() {
    let host = host();
    let directory = bundle(&host, &["/bin/sleep", "1000"], |_| {});
    create(&host, &directory, "c1");
    host.virtc(["start", "c1"]).expect_code(0);
    let stats = || -> Value {
        let out = host.virtc(["events", "--stats", "c1"]).expect_code(0).out();
        serde_json::from_str(&out).unwrap()
    };
    let before = stats();
    assert_eq!(
        (&before["type"], &before["id"]),
        (&json!("stats"), &json!("c1"))
    );
    let memory = &before["data"]["memory"]["usage"];
    assert!(memory["usage"].as_u64().unwrap() > 0, "{before}");
    host.virtc(["update", "--memory", "64m", "--pids-limit", "50", "c1"])
        .expect_code(0);
    let after = stats();
    assert_eq!(after["data"]["memory"]["usage"]["limit"], 64 << 20);
    assert_eq!(after["data"]["pids"]["limit"], 50);
    host.virtc(["update", "--cpuset-cpus", "0", "c1"])
        .expect_code(1)
        .expect_err(&["cpuset"]);
    let pids: Vec<i64> =
        serde_json::from_str(&host.virtc(["ps", "-f", "json", "c1"]).expect_code(0).out()).unwrap();
    assert_eq!(pids, [state(&host, "c1")["pid"].as_i64().unwrap()]);
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
}
