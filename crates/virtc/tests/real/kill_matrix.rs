//! Every command of the OCI command line, and what it starts, killed at every fault point: what is
//! left answers, and `delete --force` removes all of it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use test_vm::Host;
use virtcontainers::fault::{VARIABLE, Walk};

use super::oci::{bundle, lives};
use super::{host, is_dead};

/// How long a look at a state may take, whatever was killed.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How long a process of the guest may outlive the one that stood for it.
const END_LIMIT: Duration = Duration::from_secs(2);

/// How long a container may take to get where it is going.
const LIMIT: Duration = Duration::from_secs(30);

/// What a container runs that is to stay.
const STAYS: [&str; 2] = ["/bin/sleep", "1000"];

/// What an added process runs that is to stay; nothing else does.
const ADDED: [&str; 2] = ["/bin/sleep", "4242"];

/// Waits for what nothing announces.
#[track_caller]
fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
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
struct Cli {
    host: Host,
}

impl Cli {
    fn new() -> Self {
        Self { host: host() }
    }

    /// A host with a container of this name, in a sandbox of its own, that runs.
    fn with_pod() -> Self {
        let cli = Self::new();
        cli.made("pod", None);
        cli.host.virtc(["start", "pod"]).expect_code(0);
        cli
    }

    fn path(&self, name: &str) -> PathBuf {
        self.host.cwd().join(name)
    }

    /// Runs it with files for its output: what it leaves running holds them open.
    fn to_end(&self, mut command: Command) -> ExitStatus {
        let output = |name: &str| File::create(self.path(name)).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .status()
            .unwrap()
    }

    fn err(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap()
    }

    /// `virtc create ID`, with a cgroup of the test's own; in the sandbox `pod` where that is given.
    fn create(&self, id: &str, pod: Option<&str>, args: &[&str]) -> Command {
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
    fn made(&self, id: &str, pod: Option<&str>) -> Pid {
        let status = self.to_end(self.create(id, pod, &STAYS));
        assert!(status.success(), "{}", self.err());
        self.pid()
    }

    /// The pid in the file that was asked for last.
    fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.path("pid")).unwrap();
        Pid::from_raw(text.parse().unwrap()).unwrap()
    }

    /// Runs it to its end, which is to be at `point` for one of its processes.
    fn killed_at(&self, point: &str, mut command: Command) -> ExitStatus {
        command.env(VARIABLE, format!("{point}:kill"));
        self.to_end(command)
    }

    /// `virtc ARGS`, killed at `point`.
    fn kill_at(&self, point: &str, args: &[&str]) {
        let status = self.killed_at(point, self.host.command(args));
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9), "{point}: {status} {}", self.err());
    }

    /// What `virtc state` says, in time; nothing when there is no such container.
    fn state(&self, id: &str, point: &str) -> Option<Value> {
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
    fn expect_status(&self, id: &str, point: &str, allowed: &[&str]) {
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
    fn remove(&self, id: &str, point: &str) {
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
    fn remove_all(&mut self, id: &str, point: &str) {
        self.remove(id, point);
        let left = self.host.left();
        assert!(
            left.is_empty(),
            "{point}: left behind:\n{}",
            left.join("\n")
        );
    }

    /// How many added processes run in `pod`.
    fn added(&self) -> usize {
        let listed = self.host.virtc(["ps", "pod"]).expect_code(0).out();
        listed.matches(&ADDED.join(" ")).count()
    }

    fn wait_for_added(&self, number: usize, point: &str, limit: Duration) {
        let what = format!("{point}: {number} added processes");
        wait_for(&what, limit, || (self.added() == number).then_some(()));
    }
}

fn wait_for_end(pid: Pid, what: &str) {
    wait_for(what, LIMIT, || (!lives(pid)).then_some(()));
}

/// The points of a walk from `first` on and before `end`.
fn between(walk: Walk, first: &str, end: &str) -> &'static [&'static str] {
    let points = walk.points();
    let place = |name: &str| points.iter().position(|point| *point == name);
    &points[place(first).unwrap_or(0)..place(end).unwrap_or(points.len())]
}

/// One of the keeper's points before the container is made and reported.
fn keeper_killed_in_create(points: &[&str]) {
    for point in points {
        let mut cli = Cli::new();
        let status = cli.killed_at(point, cli.create("c1", None, &STAYS));
        // The report may be out already.
        let reported = *point == "stand-in.reported";
        assert!(reported || status.code() == Some(1), "{point}: {status}");
        if status.success() {
            // It may end a moment after whoever it reported to.
            wait_for_end(cli.pid(), point);
        }
        cli.expect_status("c1", point, &["", "creating", "stopped"]);
        cli.remove_all("c1", point);
    }
}

#[test]
fn create_whose_keeper_is_killed_before_the_guest_answers() {
    keeper_killed_in_create(between(Walk::Keeper, "", "create.agent-ready"));
}

#[test]
fn create_whose_keeper_is_killed_while_the_guest_is_prepared() {
    keeper_killed_in_create(between(
        Walk::Keeper,
        "create.agent-ready",
        "create.container-made",
    ));
}

#[test]
fn create_whose_keeper_is_killed_when_the_container_is_made() {
    keeper_killed_in_create(between(Walk::Keeper, "create.container-made", "stop.begun"));
}

#[test]
fn a_keeper_that_is_killed_while_its_container_ends() {
    for point in between(Walk::Keeper, "stop.begun", "") {
        let mut cli = Cli::new();
        let mut create = cli.create("c1", None, &["/bin/true"]);
        create.env(VARIABLE, format!("{point}:kill"));
        assert!(cli.to_end(create).success(), "{}", cli.err());
        let stand_in = cli.pid();
        cli.host.virtc(["start", "c1"]).expect_code(0);
        wait_for_end(stand_in, point);
        cli.expect_status("c1", point, &["stopped"]);
        cli.remove_all("c1", point);
    }
}

#[test]
fn create_that_is_killed_itself() {
    for point in Walk::Caller.points() {
        let mut cli = Cli::new();
        let status = cli.killed_at(point, cli.create("c1", None, &STAYS));
        assert!(!status.success(), "{point}");
        match *point {
            // What it started gives up, also while it makes something.
            "caller.spawned" => _ = cli.state("c1", point),
            _ => cli.expect_status("c1", point, &["created"]),
        }
        cli.remove_all("c1", point);
    }
}

#[test]
fn create_that_is_killed_is_noticed_while_the_machine_starts() {
    let cli = Cli::new();
    let mut create = cli.create("c1", None, &STAYS);
    create.env(VARIABLE, "create.vmm-launched:stop");
    let mut running = cli.host.start_command(create);
    let stand_in = running.wait_until("a stand-in that is stopped", |running| {
        let mut below = running.processes().into_iter();
        below.find(|process| process.command.contains("stand-in") && process.state == 'T')
    });
    let state = cli.state("c1", "while it is made").unwrap();
    assert_eq!(state["status"], "creating");
    running.signal(Signal::KILL);
    let pid = Pid::from_raw(stand_in.pid).unwrap();
    wait_for("the end of create", LIMIT, || {
        let parent = fs::read_to_string(format!("/proc/{}/status", stand_in.pid)).unwrap();
        (!parent.contains(&format!("PPid:\t{}\n", running.pid()))).then_some(())
    });
    kill_process(pid, Signal::CONT).unwrap();
    let continued = Instant::now();
    wait_for_end(pid, "the stand-in's end");
    // A guest answers after some seconds.
    assert!(
        continued.elapsed() < Duration::from_secs(1),
        "{:?}",
        continued.elapsed()
    );
    assert_eq!(running.wait().code(), 128 + 9);
    // By itself, and everything of it.
    assert_eq!(cli.state("c1", "given up"), None);
}

#[test]
fn create_of_a_container_that_joins_whose_stand_in_is_killed() {
    let mut cli = Cli::with_pod();
    for point in Walk::Member.points() {
        let status = cli.killed_at(point, cli.create("m1", Some("pod"), &STAYS));
        let reported = *point == "stand-in.reported";
        assert!(reported || status.code() == Some(1), "{point}: {status}");
        if status.success() {
            // It may end a moment after whoever it reported to.
            wait_for_end(cli.pid(), point);
        }
        cli.expect_status("m1", point, &["creating", "created", "stopped"]);
        cli.remove("m1", point);
        cli.host.virtc(["ps", "pod"]).expect_code(0);
    }
    // None of them is in the way of another one.
    cli.made("m1", Some("pod"));
    cli.host.virtc(["start", "m1"]).expect_code(0);
    cli.remove_all("pod", "all");
}

#[test]
fn start_that_is_killed() {
    let mut cli = Cli::with_pod();
    for point in Walk::Start.points() {
        cli.made("m1", Some("pod"));
        cli.kill_at(point, &["start", "m1"]);
        let allowed: &[&str] = match *point {
            "start.begun" => &["created"],
            // The guest is not asked: it is mended by the next start.
            "start.process-started" => &["created"],
            _ => &["running"],
        };
        cli.expect_status("m1", point, allowed);
        if allowed == ["created"] {
            cli.host.virtc(["start", "m1"]).expect_code(0);
            cli.expect_status("m1", point, &["running"]);
        }
        cli.remove("m1", point);
    }
    cli.remove_all("pod", "all");
}

#[test]
fn exec_that_is_killed() {
    let mut cli = Cli::with_pod();
    for point in Walk::Exec.points() {
        match *point {
            "exec.ended" => cli.kill_at(point, &["exec", "pod", "/bin/true"]),
            _ => cli.kill_at(point, &["exec", "pod", ADDED[0], ADDED[1]]),
        }
        cli.wait_for_added(0, point, END_LIMIT);
        cli.expect_status("pod", point, &["running"]);
    }
    let pid_file = cli.path("pid");
    let detached = |args: &[&str]| {
        let mut command = cli.host.command(["exec", "--detach", "--pid-file"]);
        command.arg(&pid_file).arg("pod").args(args);
        command
    };
    for point in Walk::Exec.points() {
        let command = match *point {
            "exec.ended" => detached(&["/bin/true"]),
            _ => detached(&ADDED),
        };
        let status = cli.killed_at(point, command);
        assert_eq!(status.success(), *point == "exec.ended", "{point}");
        cli.wait_for_added(0, point, END_LIMIT);
        cli.expect_status("pod", point, &["running"]);
    }
    let mut stays = 0;
    for point in Walk::Caller.points() {
        cli.killed_at(point, detached(&ADDED));
        // One that was reported is stood for, and lives.
        stays += usize::from(*point != "caller.spawned");
        cli.wait_for_added(stays, point, END_LIMIT);
        cli.expect_status("pod", point, &["running"]);
    }
    cli.remove_all("pod", "all");
}

#[test]
fn kill_that_is_killed() {
    let mut cli = Cli::with_pod();
    for point in Walk::Kill.points() {
        let stand_in = cli.made("m1", Some("pod"));
        cli.host.virtc(["start", "m1"]).expect_code(0);
        cli.kill_at(point, &["kill", "m1", "KILL"]);
        match *point {
            "kill.begun" => cli.expect_status("m1", point, &["running"]),
            _ => {
                wait_for_end(stand_in, point);
                cli.expect_status("m1", point, &["stopped"]);
            }
        }
        cli.remove("m1", point);
    }
    cli.remove_all("pod", "all");
}

#[test]
fn delete_that_is_killed() {
    for point in Walk::Delete.points() {
        let mut cli = Cli::with_pod();
        cli.kill_at(point, &["delete", "--force", "pod"]);
        let allowed: &[&str] = match *point {
            "delete.begun" => &["running"],
            "delete.state-removed" | "delete.hooks-run" => &[""],
            _ => &["stopped", ""],
        };
        cli.expect_status("pod", point, allowed);
        cli.remove_all("pod", point);
    }
}

#[test]
fn delete_of_a_container_that_joined_that_is_killed() {
    let mut cli = Cli::with_pod();
    for point in Walk::DeleteContainer.points() {
        cli.made("m1", Some("pod"));
        cli.host.virtc(["start", "m1"]).expect_code(0);
        cli.kill_at(point, &["delete", "--force", "m1"]);
        match *point {
            "delete-container.seen" | "delete-container.begun" => {
                cli.expect_status("m1", point, &["running"]);
            }
            "delete-container.written" | "delete.hooks-run" => {
                cli.expect_status("m1", point, &[""]);
            }
            _ => {
                // Whoever stands for it says so, and need not be faster than we are.
                wait_for(point, END_LIMIT, || {
                    let state = cli.state("m1", point)?;
                    (state["status"] == "stopped").then_some(())
                });
            }
        }
        cli.remove("m1", point);
        cli.host.virtc(["ps", "pod"]).expect_code(0);
    }
    cli.remove_all("pod", "all");
}

/// As engines do it that end all of a pod at once.
#[test]
fn delete_of_a_container_that_joined_whose_machine_ends_meanwhile() {
    for point in ["delete-container.seen", "delete-container.begun"] {
        let mut cli = Cli::with_pod();
        let keeper = cli.pid();
        cli.made("m1", Some("pod"));
        cli.host.virtc(["start", "m1"]).expect_code(0);
        let mut delete = cli.host.command(["delete", "--force", "m1"]);
        delete.env(VARIABLE, format!("{point}:stop"));
        let running = cli.host.start_command(delete);
        wait_for("a delete that is stopped", LIMIT, || {
            let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
            status.contains("State:\tT").then_some(())
        });
        cli.host.virtc(["kill", "pod", "KILL"]).expect_code(0);
        wait_for_end(keeper, "the keeper's end");
        cli.expect_status("pod", point, &["stopped"]);
        running.signal(Signal::CONT);
        running.wait().expect_code(0);
        assert_eq!(cli.state("m1", point), None);
        cli.remove_all("pod", point);
    }
}

/// Engines look for the words.
#[test]
fn a_signal_to_a_container_that_has_ended_in_a_machine_that_goes_on_is_refused_as_elsewhere() {
    let mut cli = Cli::with_pod();
    let stand_in = cli.made("m1", Some("pod"));
    cli.host.virtc(["start", "m1"]).expect_code(0);
    cli.host.virtc(["kill", "m1", "KILL"]).expect_code(0);
    wait_for_end(stand_in, "the member's end");
    let refused = cli.host.virtc(["kill", "m1", "TERM"]);
    refused
        .expect_code(1)
        .expect_err(&["container not running"]);
    cli.remove("m1", "ended");
    cli.remove_all("pod", "ended");
}

#[test]
fn the_code_of_an_added_process_is_told_though_its_outputs_end_with_the_machine() {
    let mut cli = Cli::with_pod();
    // What it leaves holds its outputs, and says when it is gone.
    let left = "while kill -0 $0 2>/dev/null; do sleep 0.1; done; echo gone; exec sleep 4242";
    let script = format!("sh -c '{left}' $$ & exit 3");
    let out = cli.path("out");
    let mut added = cli.host.command(["exec", "pod", "/bin/sh", "-c", &script]);
    added
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap());
    let mut added = added.spawn().unwrap();
    wait_for("the end of what was added", LIMIT, || {
        (fs::read_to_string(&out).unwrap() == "gone\n").then_some(())
    });
    // At once, with whatever writes.
    cli.host.virtc(["delete", "--force", "pod"]).expect_code(0);
    assert_eq!(added.wait().unwrap().code(), Some(3));
    cli.remove_all("pod", "deleted");
}

#[test]
fn kill_9_of_whoever_stands_for_a_process_ends_that() {
    let cli = Cli::with_pod();
    let keeper = cli.pid();
    let stand_in = cli.made("m1", Some("pod"));
    cli.host.virtc(["start", "m1"]).expect_code(0);

    let attached = cli.host.start(["exec", "pod", ADDED[0], ADDED[1]]);
    cli.wait_for_added(1, "exec", LIMIT);
    attached.signal(Signal::KILL);
    cli.wait_for_added(0, "exec", END_LIMIT);
    assert_eq!(attached.wait().code(), 128 + 9);

    let mut detached = cli.host.command(["exec", "--detach", "--pid-file"]);
    detached.arg(cli.path("pid")).arg("pod").args(ADDED);
    assert!(cli.to_end(detached).success(), "{}", cli.err());
    cli.wait_for_added(1, "exec --detach", LIMIT);
    kill_process(cli.pid(), Signal::KILL).unwrap();
    cli.wait_for_added(0, "exec --detach", END_LIMIT);

    kill_process(stand_in, Signal::KILL).unwrap();
    wait_for("the member's end", END_LIMIT, || {
        let state = cli.state("m1", "stand-in")?;
        (state["status"] == "stopped").then_some(())
    });
    cli.expect_status("pod", "stand-in", &["running"]);

    kill_process(keeper, Signal::KILL).unwrap();
    wait_for_end(keeper, "the keeper's end");
    cli.expect_status("pod", "keeper", &["stopped"]);
    cli.expect_status("m1", "keeper", &["stopped"]);
    // It waits for processes as long as they may take.
    let left = cli.host.left();
    assert!(is_dead(&left), "{left:?}");
    cli.remove("pod", "keeper");
}

/// Which test is about a walk: one that is added has to be in the matrix.
#[test]
fn every_walk_is_in_the_matrix() {
    for walk in Walk::ALL {
        match walk {
            // See the modules `faults`, `templates` and `cache`.
            Walk::Run | Walk::Template | Walk::Hold | Walk::Take => {}
            // See the tests of the shim.
            Walk::TaskExec | Walk::TaskDelete | Walk::TaskDeleteContainer => {}
            Walk::Caller
            | Walk::Keeper
            | Walk::Network
            | Walk::Nat
            | Walk::Member
            | Walk::Start
            | Walk::Exec
            | Walk::Kill
            | Walk::Delete
            | Walk::DeleteContainer => {}
        }
        assert!(!walk.points().is_empty(), "{walk:?}");
    }
}
