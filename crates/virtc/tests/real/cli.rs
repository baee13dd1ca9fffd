//! Containers of the OCI command line, one at a time or in one pod, for tests that interfere with them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::{Value, json};
use test_vm::Host;
use virtcontainers::fault::VARIABLE;

use super::host;
use super::oci::{bundle, lives};

/// How long a look at a state may take, whatever was killed.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How long a process of the guest may outlive the one that stood for it.
pub(super) const END_LIMIT: Duration = Duration::from_secs(2);

/// How long a container may take to get where it is going.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// What a container runs that is to stay.
pub(super) const STAYS: [&str; 2] = ["/bin/sleep", "1000"];

/// What an added process runs that is to stay; nothing else does.
pub(super) const ADDED: [&str; 2] = ["/bin/sleep", "4242"];

/// Waits for what nothing announces.
#[track_caller]
pub(super) fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `virtc` with containers of one test.
pub(super) struct Cli {
    pub(super) host: Host,
}

impl Cli {
    pub(super) fn new() -> Self {
        Self { host: host() }
    }

    /// A host with a container of this name, in a sandbox of its own, that runs.
    pub(super) fn with_pod() -> Self {
        let cli = Self::new();
        cli.made("pod", None);
        cli.host.virtc(["start", "pod"]).expect_code(0);
        cli
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.host.cwd().join(name)
    }

    /// Runs it with files for its output: what it leaves running holds them open.
    pub(super) fn to_end(&self, mut command: Command) -> ExitStatus {
        let output = |name: &str| File::create(self.path(name)).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .status()
            .unwrap()
    }

    pub(super) fn err(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap()
    }

    /// `virtc create ID`, with a cgroup of the test's own; in the sandbox `pod` where that is given.
    pub(super) fn create(&self, id: &str, pod: Option<&str>, args: &[&str]) -> Command {
        let directory = bundle(&self.host, args, |config| {
            config["linux"]["cgroupsPath"] = json!(self.host.cgroup(id));
            if let Some(pod) = pod {
                config["annotations"] = json!({
                    "io.kubernetes.cri.container-type": "container",
                    "io.kubernetes.cri.sandbox-id": pod,
                });
            }
        });
        let mut command = self.host.command(["create", "--bundle"]);
        command
            .arg(directory)
            .arg("--pid-file")
            .arg(self.path("pid"))
            .arg(id);
        command
    }

    /// A container that waits for its start; gives what stands for it.
    pub(super) fn made(&self, id: &str, pod: Option<&str>) -> Pid {
        let status = self.to_end(self.create(id, pod, &STAYS));
        assert!(status.success(), "{}", self.err());
        self.pid()
    }

    /// The pid in the file that was asked for last.
    pub(super) fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.path("pid")).unwrap();
        Pid::from_raw(text.parse().unwrap()).unwrap()
    }

    /// Runs it to its end, which is to be at `point` for one of its processes.
    pub(super) fn killed_at(&self, point: &str, mut command: Command) -> ExitStatus {
        command.env(VARIABLE, format!("{point}:kill"));
        self.to_end(command)
    }

    /// `virtc ARGS`, killed at `point`.
    pub(super) fn kill_at(&self, point: &str, args: &[&str]) {
        let status = self.killed_at(point, self.host.command(args));
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9), "{point}: {status} {}", self.err());
    }

    /// What `virtc state` says, in time; nothing when there is no such container.
    pub(super) fn state(&self, id: &str, point: &str) -> Option<Value> {
        let outcome = self.host.virtc(["state", id]);
        assert!(
            outcome.took < ANSWER_LIMIT,
            "{point}: state took {:?}",
            outcome.took
        );
        if outcome.code() != 0 {
            outcome.expect_code(1).expect_err(&["does not exist"]);
            return None;
        }
        Some(serde_json::from_str(&outcome.out()).unwrap())
    }

    /// The container's status is one of these; "" is that there is none. What the state says of
    /// processes is true: only where none of them is about to end.
    pub(super) fn expect_status(&self, id: &str, point: &str, allowed: &[&str]) {
        let state = self.state(id, point);
        let status = state.as_ref().map_or("", |s| s["status"].as_str().unwrap());
        assert!(
            allowed.contains(&status),
            "{point}: {status:?}, not in {allowed:?}: {state:?}"
        );
        if let Some(pid) = state.as_ref().and_then(|state| state["pid"].as_i64()) {
            let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            // One that is about to end when it is looked at has none a moment later.
            let again = || {
                self.state(id, point)
                    .and_then(|state| state["pid"].as_i64())
            };
            let gone = || again() != Some(pid.as_raw_nonzero().get().into());
            assert!(lives(pid) || gone(), "{point}: {state:?}");
        }
        if status == "running" {
            self.host.virtc(["ps", id]).expect_code(0);
        }
    }

    /// Lists in time, and removes the container with everything of it.
    pub(super) fn remove(&self, id: &str, point: &str) {
        let listed = self.host.virtc(["list"]).expect_code(0);
        assert!(
            listed.took < ANSWER_LIMIT,
            "{point}: list took {:?}",
            listed.took
        );
        let deleted = self.host.virtc(["delete", "--force", id]);
        assert_eq!(deleted.code(), 0, "{point}: {}", deleted.err());
        assert_eq!(self.state(id, point), None, "{point}");
        let cgroups = self.host.cgroups_left(id);
        assert!(cgroups.is_empty(), "{point}: {cgroups:?}");
    }

    /// The same, and nothing at all is left.
    pub(super) fn remove_all(&mut self, id: &str, point: &str) {
        self.remove(id, point);
        let left = self.host.left();
        assert!(
            left.is_empty(),
            "{point}: left behind:\n{}",
            left.join("\n")
        );
    }

    /// How many added processes run in `pod`.
    pub(super) fn added(&self) -> usize {
        let listed = self.host.virtc(["ps", "pod"]).expect_code(0).out();
        listed.matches(&ADDED.join(" ")).count()
    }

    pub(super) fn wait_for_added(&self, number: usize, point: &str, limit: Duration) {
        let what = format!("{point}: {number} added processes");
        wait_for(&what, limit, || (self.added() == number).then_some(()));
    }
}

pub(super) fn wait_for_end(pid: Pid, what: &str) {
    wait_for(what, LIMIT, || (!lives(pid)).then_some(()));
}
