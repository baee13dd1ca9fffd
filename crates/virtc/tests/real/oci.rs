//! The OCI command line: containers of bundles, and the processes that stand for them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use test_vm::Host;

use super::{busybox_root, host};

/// How long a container may take to get where it is going.
const LIMIT: Duration = Duration::from_secs(30);

/// What a process that stands for a container takes for itself while it waits, at most. Most of it is
/// what the loader writes into the program.
const WAITING_ANON_KIB: u64 = 1792;

/// The same with its part of the program: of the profile that the tests are built with. How much of a
/// file is mapped at once depends on how the host has cached it.
const WAITING_PSS_KIB: u64 = 2304;

/// A bundle whose process is this command; gives its directory.
pub(super) fn bundle(host: &Host, args: &[&str], change: impl FnOnce(&mut Value)) -> PathBuf {
    if !host.dir("root").join("bin").exists() {
        busybox_root(host);
    }
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": {"path": "root"},
        "hostname": "ocibox",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755", "size=65536k"]},
        ],
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            {"type": "network"},
        ]},
    });
    change(&mut config);
    let directory = host.dir("root").parent().unwrap().to_owned();
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    directory
}

/// Whether the process has not ended. Its parent is not ours, and may leave it unreaped.
pub(super) fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let ended = |stat: String| {
        stat.rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z')
    };
    stat.is_ok_and(|stat| !ended(stat))
}

/// A container that was created, with files for its streams.
struct Created<'a> {
    host: &'a Host,
    directory: PathBuf,
    pid: Pid,
}

impl<'a> Created<'a> {
    fn new(host: &'a Host, args: &[&str]) -> Self {
        let directory = bundle(host, args, |_| {});
        let pid_file = directory.join("pid");
        let bundle = directory.to_str().unwrap();
        let flags = ["create", "--bundle", bundle, "--pid-file"];
        let mut command = host.command(flags);
        command.arg(&pid_file).arg("c1");
        fs::write(directory.join("in"), "one\n").unwrap();
        let status = command
            .stdin(File::open(directory.join("in")).unwrap())
            .stdout(File::create(directory.join("out")).unwrap())
            .stderr(File::create(directory.join("err")).unwrap())
            .status()
            .unwrap();
        let err = fs::read_to_string(directory.join("err")).unwrap();
        assert!(status.success(), "{err}");
        let pid = fs::read_to_string(&pid_file).unwrap();
        Self {
            host,
            pid: Pid::from_raw(pid.parse().unwrap()).unwrap(),
            directory,
        }
    }

    fn started(host: &'a Host, args: &[&str]) -> Self {
        let created = Self::new(host, args);
        host.virtc(["start", "c1"]).expect_code(0);
        created
    }

    fn state(&self) -> Value {
        let state = self.host.virtc(["state", "c1"]).expect_code(0);
        serde_json::from_str(&state.out()).unwrap()
    }

    fn out(&self) -> String {
        fs::read_to_string(self.directory.join("out")).unwrap()
    }

    /// The memory of the process that stands for it, in KiB: what is of no file, and that with its
    /// part of what it shares.
    fn memory(&self) -> (u64, u64) {
        let path = format!("/proc/{}/smaps_rollup", self.pid.as_raw_nonzero());
        let rollup = fs::read_to_string(path).unwrap();
        let kib = |name| {
            let size = rollup.lines().find_map(|line| line.strip_prefix(name));
            size.unwrap().trim_end_matches("kB").trim().parse().unwrap()
        };
        (kib("Pss_Anon:"), kib("Pss:"))
    }

    /// Waits until the process that stands for it has ended, and gives the state then.
    fn ended(&self) -> Value {
        let end = Instant::now() + LIMIT;
        while lives(self.pid) {
            assert!(Instant::now() < end, "the stand-in does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.state()
    }

    fn wait_for_out(&self, text: &str) {
        let end = Instant::now() + LIMIT;
        while !self.out().contains(text) {
            assert!(Instant::now() < end, "no {text:?} in {:?}", self.out());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
pub(super) fn a_container_goes_the_whole_way_and_leaves_nothing() {
    let host = host();
    let script = "read x; echo got $x; hostname; exit 5";
    let container = Created::new(&host, &["/bin/sh", "-c", script]);
    let state = container.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], container.pid.as_raw_nonzero().get());
    assert_eq!(state["bundle"], container.directory.to_str().unwrap());
    assert_eq!(container.out(), "");
    let list = host.virtc(["list", "-f", "json"]).expect_code(0).out();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(
        (&list[0]["id"], &list[0]["status"]),
        (&json!("c1"), &json!("created"))
    );

    host.virtc(["start", "c1"]).expect_code(0);
    let state = container.ended();
    assert_eq!(
        (&state["status"], &state["exitCode"]),
        (&json!("stopped"), &json!(5))
    );
    assert_eq!(container.out(), "got one\nocibox\n");
    assert_eq!(state.get("pid"), None);
    host.virtc(["start", "c1"]).expect_code(1);
    host.virtc(["kill", "c1"])
        .expect_code(1)
        .expect_err(&["container not running"]);

    host.virtc(["delete", "c1"]).expect_code(0);
    host.virtc(["state", "c1"])
        .expect_code(1)
        .expect_err(&["does not exist"]);
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
}

#[test]
pub(super) fn one_that_was_never_started_is_deleted_and_a_running_one_is_not() {
    let host = host();
    let created = Created::new(&host, &["/bin/sleep", "1000"]);
    host.virtc(["delete", "c1"]).expect_code(0);
    assert!(!lives(created.pid));

    let running = Created::started(&host, &["/bin/sleep", "1000"]);
    host.virtc(["delete", "c1"])
        .expect_code(1)
        .expect_err(&["running"]);
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert!(!lives(running.pid));
}

#[test]
pub(super) fn a_signal_to_what_stands_for_it_is_the_processes() {
    let host = host();
    let script = "trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    let container = Created::started(&host, &["/bin/sh", "-c", script]);
    container.wait_for_out("up\n");
    kill_process(container.pid, Signal::TERM).unwrap();
    assert_eq!(container.ended()["exitCode"], 3);
    assert_eq!(container.out(), "up\nterm\n");
    host.virtc(["delete", "c1"]).expect_code(0);
}

#[test]
pub(super) fn kill_9_of_what_stands_for_it_stops_the_container() {
    let host = host();
    let container = Created::started(&host, &["/bin/sleep", "1000"]);
    kill_process(container.pid, Signal::KILL).unwrap();
    let state = container.ended();
    assert_eq!(state["status"], "stopped");
    // Never a success.
    assert_ne!(state["exitCode"], 0);
    host.virtc(["delete", "c1"]).expect_code(0);
}

#[test]
fn what_waits_for_a_container_takes_little_memory() {
    let host = host();
    let script = "echo up; read x; echo $x; sleep 1000";
    let container = Created::started(&host, &["/bin/sh", "-c", script]);
    container.wait_for_out("up\none\n");
    let end = Instant::now() + LIMIT;
    loop {
        // It gives back what it does not need a moment after the last thing has happened.
        let (anon, pss) = container.memory();
        if anon <= WAITING_ANON_KIB && pss <= WAITING_PSS_KIB {
            println!("{anon} KiB of no file, {pss} KiB in all");
            break;
        }
        assert!(Instant::now() < end, "{anon} KiB, {pss} KiB");
        std::thread::sleep(Duration::from_millis(50));
    }
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
}

#[test]
pub(super) fn a_process_is_added_by_its_description_and_stood_for() {
    let host = host();
    let container = Created::started(&host, &["/bin/sleep", "1000"]);
    let process = container.directory.join("process.json");
    let description = json!({
        "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin", "A=b"],
        "args": ["/bin/sh", "-c", "echo $A; exit 9"],
    });
    fs::write(&process, description.to_string()).unwrap();
    let process = process.to_str().unwrap();
    let waited = host.virtc(["exec", "--process", process, "c1"]);
    assert_eq!(waited.expect_code(9).out(), "b\n");

    let pid_file = container.directory.join("exec-pid");
    let status = host
        .command(["exec", "--detach", "--process", process, "--pid-file"])
        .arg(&pid_file)
        .arg("c1")
        .stdin(Stdio::null())
        .stdout(File::create(container.directory.join("out")).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    container.wait_for_out("b\n");
    assert!(
        fs::read_to_string(pid_file)
            .unwrap()
            .parse::<i32>()
            .unwrap()
            > 1
    );
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
}

#[test]
fn what_cannot_be_made_is_told_to_the_log_and_leaves_nothing() {
    let host = host();
    let directory = bundle(&host, &["/bin/true"], |config| {
        let user = json!({"type": "user"});
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(user);
    });
    let log = directory.join("log.json");
    let create = |bundle: &str| {
        let log = log.to_str().unwrap();
        let flags = [
            "--log-format",
            "json",
            "--log",
            log,
            "create",
            "--bundle",
            bundle,
            "c1",
        ];
        host.virtc(flags).expect_code(1)
    };
    create(directory.to_str().unwrap()).expect_err(&["user namespace", "not supported"]);
    let text = fs::read_to_string(&log).unwrap();
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(
        line["msg"].as_str().unwrap().contains("user namespace"),
        "{line}"
    );

    create("/nonexistent").expect_err(&["/nonexistent"]);
    let empty = host.dir("empty");
    create(empty.to_str().unwrap()).expect_err(&["bundle", "config.json"]);
    host.virtc(["state", "c1"]).expect_code(1);
}
