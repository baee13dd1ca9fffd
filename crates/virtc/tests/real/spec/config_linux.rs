//! `config-linux.md`: namespaces, devices, limits, paths and the filter of system calls.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::super::host;
use super::super::host_side::{create, state};
use super::super::oci::bundle;
use super::config::set;
use super::{Machine, member_of, try_create};

/// A process with a network of its own, which goes with this.
struct Network(Child);

impl Network {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo up; exec sleep 1000"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        Self(child)
    }

    fn of(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.0.id())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_container_is_in_the_namespaces_that_are_named_or_new_and_otherwise_in_those_of_the_guest() {
    let host = host();
    let network = Network::new();
    // As engines name them: not as a process's.
    let of = |kind: &str| {
        let link = host.dir("ns").join(kind);
        let _ = std::os::unix::fs::symlink(network.of(kind), &link);
        link.to_str().unwrap().to_owned()
    };
    let refuses = |what: &str, says: &str, namespaces: Value| {
        let directory = bundle(&host, &["/bin/true"], |config| {
            config["linux"]["namespaces"] = namespaces;
        });
        let error = try_create(&host, &directory, "c1").expect_err(what);
        assert!(error.contains(says), "{what}: {error}");
        host.virtc(["state", "c1"]).expect_code(1);
    };
    refuses(
        "a path of another type",
        "ns/uts",
        json!([{"type": "network", "path": of("uts")}]),
    );
    refuses(
        "a path of nothing",
        "ns/none",
        json!([{"type": "network", "path": of("none")}]),
    );
    refuses(
        "two of one type",
        "linux.namespaces",
        json!([{"type": "uts"}, {"type": "uts"}]),
    );
    refuses(
        "a type that is none",
        "config.json",
        json!([{"type": "dream"}]),
    );
    refuses("a user namespace", "user", json!([{"type": "user"}]));

    let directory = bundle(&host, &["/bin/sleep", "1000"], |config| {
        config["linux"]["namespaces"] = json!([
            {"type": "network", "path": of("net")}, {"type": "pid"}, {"type": "mount"},
        ]);
        config.as_object_mut().unwrap().remove("hostname");
    });
    create(&host, &directory, "c1");
    host.virtc(["start", "c1"]).expect_code(0);
    let pid = state(&host, "c1")["pid"].as_i64().unwrap();
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/ns/net")).unwrap(),
        fs::read_link(network.of("net")).unwrap(),
        "the network that is named"
    );
    let member = |name: &str, namespaces: Value| {
        let script = "for kind in uts ipc pid; do readlink /proc/self/ns/$kind; done";
        let directory = bundle(&host, &["/bin/sh", "-c", script], |config| {
            member_of("c1", config);
            config["linux"]["namespaces"] = namespaces;
            config.as_object_mut().unwrap().remove("hostname");
        });
        let directory = directory.to_str().unwrap();
        let out = host.virtc(["run", "--bundle", directory, name]);
        let out = out.expect_code(0).out();
        let links: Vec<String> = out.lines().map(str::to_owned).collect();
        assert_eq!(links.len(), 3, "{out}");
        links
    };
    let own = json!([{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "pid"}]);
    let first = member("c2", own);
    let second = member("c3", json!([{"type": "mount"}]));
    let third = member("c4", json!([{"type": "mount"}]));
    for (number, kind) in ["uts", "ipc", "pid"].iter().enumerate() {
        assert_ne!(first[number], second[number], "a new {kind} namespace");
        assert_eq!(
            second[number], third[number],
            "the guest's {kind} namespace"
        );
    }
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
}

#[test]
fn devices_are_those_that_every_container_has_and_those_that_are_asked_for() {
    let machine = Machine::new();
    let format = "stat -c '%n %F %t:%T %a %u:%g'";
    let script = format!(
        "cd /dev; {format} null zero full random urandom tty mine block pipe; \
         stat -L -c '%F %t:%T' ptmx; for link in fd stdin stdout stderr; do readlink $link; done; \
         mkdir -p /dev/pts; cat /proc/self/mounts"
    );
    let out = machine.out(&script, |config| {
        let pts = json!({
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666"],
        });
        config["mounts"].as_array_mut().unwrap().push(pts);
        config["linux"]["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640,
             "uid": 3, "gid": 4},
            {"path": "/dev/block", "type": "b", "major": 7, "minor": 200},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
        ]);
    });
    let expected = "null character special file 1:3 666 0:0\n\
                    zero character special file 1:5 666 0:0\n\
                    full character special file 1:7 666 0:0\n\
                    random character special file 1:8 666 0:0\n\
                    urandom character special file 1:9 666 0:0\n\
                    tty character special file 5:0 666 0:0\n\
                    mine character special file 1:3 640 3:4\n\
                    block block special file 7:c8 666 0:0\n\
                    pipe fifo 0:0 600 0:0\n\
                    character special file 5:2\n\
                    /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n";
    assert!(out.starts_with(expected), "{out}");

    let file = machine.host.dir("a").join("file");
    fs::write(&file, "").unwrap();
    machine.refuses("another file is at a device's place", &[], |config| {
        let bind = json!({
            "destination": "/dev/mine", "source": file.to_str().unwrap(), "options": ["bind"],
        });
        config["mounts"].as_array_mut().unwrap().push(bind);
        config["linux"]["devices"] =
            json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3}]);
    });
    machine.end();
}

#[test]
fn limits_sysctls_paths_and_propagation_are_those_that_are_asked_for() {
    let machine = Machine::new();
    let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max \
                      /sys/fs/cgroup/memory.high /sys/fs/cgroup/cpu.weight; \
                  cat /proc/sys/kernel/shm_rmid_forced; cat /etc/marker; ls /masked; \
                  touch /fixed/file 2>/dev/null || echo read-only; \
                  while read a b c d e f g; do [ $e = / ] && echo \"$g\"; done \
                  </proc/self/mountinfo; true";
    let masked = machine.host.dir("root");
    for name in ["masked", "fixed"] {
        fs::create_dir(masked.join(name)).unwrap();
        fs::write(masked.join(name).join("inside"), "").unwrap();
    }
    let out = machine.out(script, |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/sys", "type": "sysfs", "source": "sysfs"}));
        mounts.push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        }));
        let linux = &mut config["linux"];
        let namespaces = linux["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "cgroup"}));
        linux["resources"] = json!({
            "memory": {"limit": 64 << 20},
            "pids": {"limit": 77},
            "cpu": {"quota": 50000, "period": 100_000, "cpus": "0"},
            "unified": {"memory.high": "33554432", "cpu.weight": "50"},
            "blockIO": {"weight": 0},
        });
        linux["sysctl"] = json!({"kernel.shm_rmid_forced": "1"});
        linux["maskedPaths"] = json!(["/masked", "/etc/marker", "/not/there"]);
        linux["readonlyPaths"] = json!(["/fixed", "/not/there"]);
        linux["rootfsPropagation"] = json!("shared");
    });
    let expected = "67108864\n77\n50000 100000\n33554432\n50\n1\nread-only\n";
    let (start, propagation) = out.split_at(expected.len());
    assert_eq!(start, expected, "{out}");
    assert!(propagation.contains("shared:"), "{propagation}");
    machine.end();
}

#[test]
fn a_container_has_the_personality_the_clocks_and_the_priorities_that_are_asked_for() {
    const DAYS: u64 = 300;
    let machine = Machine::new();
    let out = machine.out(
        "uname -m; cut -d. -f1 /proc/uptime; ionice; cut -d' ' -f41 /proc/self/stat",
        |config| {
            let linux = &mut config["linux"];
            linux["personality"] = json!({"domain": "LINUX32"});
            let namespaces = linux["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "time"}));
            linux["timeOffsets"] = json!({"boottime": {"secs": DAYS * 86_400}});
            let process = &mut config["process"];
            process["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
            process["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 0});
        },
    );
    let lines: Vec<&str> = out.lines().collect();
    let [machine_name, uptime, io_priority, policy] = lines.as_slice() else {
        panic!("{out}");
    };
    assert_eq!(*machine_name, "i686");
    let uptime: u64 = uptime.parse().unwrap();
    assert!(
        (DAYS * 86_400..(DAYS + 1) * 86_400).contains(&uptime),
        "{out}"
    );
    assert_eq!(*io_priority, "best-effort: prio 6");
    assert_eq!(*policy, "3", "SCHED_BATCH");
    machine.end();
}

#[test]
fn a_filter_of_system_calls_acts_as_it_says() {
    let machine = Machine::new();
    let with = |script: &str, rules: Value| {
        machine.run(script, |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules,
            });
        })
    };
    let mkdir = ["mkdir", "mkdirat"];
    let rule = |action: &str, errno: Option<u32>| {
        let mut rule = json!({"names": mkdir, "action": action});
        if let Some(errno) = errno {
            rule["errnoRet"] = json!(errno);
        }
        json!([rule])
    };
    let script = "mkdir /tmp-made; echo goes on";
    let out = with(script, rule("SCMP_ACT_ERRNO", Some(28)));
    assert!(
        out.err().contains("No space left"),
        "its errno: {}",
        out.err()
    );
    assert_eq!(out.out(), "goes on\n");
    let out = with(script, rule("SCMP_ACT_ERRNO", None));
    assert!(
        out.err().contains("not permitted"),
        "without one, EPERM: {}",
        out.err()
    );
    let killed = "exec mkdir /tmp-made";
    let out = with(killed, rule("SCMP_ACT_KILL_PROCESS", None));
    assert_eq!(out.code(), 128 + 31, "it is killed");
    machine.end();
}

#[test]
fn values_of_linux_that_are_none_or_that_a_machine_cannot_honour_are_errors() {
    let machine = Machine::new();
    let filter = |rest: Value| {
        let mut filter = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        for (key, value) in rest.as_object().unwrap() {
            filter[key] = value.clone();
        }
        filter
    };
    let rule = |action: &str, errno: u32| json!({"syscalls": [{"names": ["mkdir"], "action": action, "errnoRet": errno}]});
    let refused: &[(&str, &[&str], &str, Value)] = &[
        (
            "an errno of an action without one",
            &["linux.seccomp", "SCMP_ACT_KILL"],
            "/linux/seccomp",
            filter(rule("SCMP_ACT_KILL", 1)),
        ),
        (
            "an errno of a default action without one",
            &["linux.seccomp", "SCMP_ACT_ALLOW"],
            "/linux/seccomp",
            filter(json!({"defaultErrnoRet": 1})),
        ),
        (
            "a rule for nothing",
            &["linux.seccomp.syscalls"],
            "/linux/seccomp",
            filter(json!({"syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]})),
        ),
        (
            "somebody who listens",
            &["listenerPath"],
            "/linux/seccomp",
            filter(json!({"listenerPath": "/run/listener"})),
        ),
        (
            "an errno that is none",
            &["linux.seccomp", "70000"],
            "/linux/seccomp",
            filter(rule("SCMP_ACT_ERRNO", 70_000)),
        ),
        (
            "an action that nobody would answer",
            &["linux.seccomp", "SCMP_ACT_NOTIFY"],
            "/linux/seccomp",
            filter(json!({"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]})),
        ),
        (
            "a place that no cgroup can have",
            &["cgroup"],
            "/linux/cgroupsPath",
            json!("/a/../../b"),
        ),
        (
            "a device of no type",
            &["config.json"],
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "x", "major": 1, "minor": 3}]),
        ),
        (
            "a propagation that is none",
            &["sideways"],
            "/linux/rootfsPropagation",
            json!("sideways"),
        ),
        (
            "a sysctl of the guest's own",
            &["kernel.nonsense"],
            "/linux/sysctl",
            json!({"kernel.nonsense": "1"}),
        ),
        (
            "what is shared with the processor's cache",
            &["linux.intelRdt"],
            "/linux/intelRdt",
            json!({"closID": "a"}),
        ),
        (
            "a flag of a personality",
            &["linux.personality.flags"],
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}),
        ),
        (
            "another time in the guest's own time namespace",
            &["linux.timeOffsets", "no time namespace"],
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 1, "nanosecs": 0}}),
        ),
        (
            "an interface of the host's own",
            &["linux.netDevices"],
            "/linux/netDevices",
            json!({"eth9": {}}),
        ),
        (
            "a NUMA node",
            &["linux.memoryPolicy"],
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "0"}),
        ),
        (
            "a limit of RDMA",
            &["linux.resources.rdma"],
            "/linux/resources",
            json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}}),
        ),
        (
            "a key of a cgroup that is not there",
            &["nonsense.max"],
            "/linux/resources",
            json!({"unified": {"nonsense.max": "1"}}),
        ),
    ];
    for (what, says, at, value) in refused {
        machine.refuses(what, says, |config| {
            set(config, at, value.clone());
        });
    }
    machine.end();
}
