//! Machines that wait: made beforehand or behind a run, taken whole by the next one.

use std::fs;
use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use test_vm::{Outcome, Process, descendants};
use virtcontainers::fault::Walk;

use super::clocks::run_in_time;
use super::factory::{Factory, compared};
use super::network::Wire;
use super::oci::bundle;
use super::templates::{DRAW, expect_new, of_the_host};
use super::{busybox_root, is_dead};

/// How long a machine may take to be made behind a run.
const MADE_LIMIT: Duration = Duration::from_secs(60);

/// How long an idle machine is looked at.
const IDLE: Duration = Duration::from_secs(2);

/// What a machine may do in that time, in ticks of the clock: the kernel counts whole ones.
const IDLE_TICKS_MAX: u64 = 1;

/// A host with a cache of its own.
struct Cache(Factory);

impl Deref for Cache {
    type Target = Factory;

    fn deref(&self) -> &Factory {
        &self.0
    }
}

impl DerefMut for Cache {
    fn deref_mut(&mut self) -> &mut Factory {
        &mut self.0
    }
}

impl Cache {
    fn new() -> Self {
        Self(Factory::new())
    }

    /// One with so many machines that wait.
    fn warm(number: usize) -> Self {
        let cache = Self::new();
        let warm = cache
            .host
            .virtc(["factory", "warm", "-n", &number.to_string()]);
        assert_eq!(warm.expect_code(0).out().lines().count(), number);
        cache
    }

    fn root(&self) -> PathBuf {
        self.host.root().join(".waiting:vms")
    }

    /// The names of those that can be taken.
    fn waiting(&self) -> Vec<String> {
        self.ids("waiting-vm")
    }

    /// Runs a command of the host's system and says whether its machine had waited.
    #[track_caller]
    fn run(&self, script: &str) -> (String, bool) {
        let outcome = self.host.run(&["--timeline"], &["sh", "-c", script]);
        let outcome = outcome.expect_code(0);
        (outcome.out(), is_taken(&outcome))
    }

    /// Ends what waits, and looks that nothing is left.
    #[track_caller]
    fn close(mut self) {
        self.host.virtc(["factory", "destroy"]).expect_code(0);
        self.host.virtc(["gc"]).expect_code(0);
        self.host.expect_nothing_left();
    }
}

/// Nothing is made for a run whose machine waited.
fn is_taken(outcome: &Outcome) -> bool {
    is_of_a_taken_machine(&outcome.err())
}

fn is_of_a_taken_machine(err: &str) -> bool {
    assert!(err.contains("container made"), "{err}");
    !err.contains("device processes run")
}

fn processes(text: &str) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap();
    let mut all = descendants(own);
    all.retain(|process| process.command.contains(text));
    all
}

fn kill(process: &Process) {
    kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL).unwrap();
}

/// Waits for what nothing announces.
#[track_caller]
fn wait_for(what: &str, mut look: impl FnMut() -> bool) {
    let end = Instant::now() + MADE_LIMIT;
    while !look() {
        assert!(Instant::now() < end, "{what}: not within {MADE_LIMIT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_run_takes_what_waits_and_leaves_nothing_of_it() {
    let cache = Cache::warm(2);
    let names = cache.waiting();
    assert_eq!(names.len(), 2);
    let enough = cache.host.virtc(["factory", "warm", "-n", "2"]);
    assert_eq!(enough.expect_code(0).out(), "", "there are enough");
    let check = cache.host.virtc(["check"]).out();
    assert!(check.contains("waiting VMs"), "{check}");
    // Nobody sees it as a sandbox.
    assert_eq!(cache.host.virtc(["list", "-q"]).out(), "");
    // Of another size it is another kind.
    let other = cache
        .host
        .run(&["-m", "512m", "--timeline"], &["true"])
        .expect_code(0);
    assert!(!is_taken(&other), "{}", other.err());
    let script = "hostname; pwd; ls; echo x >new && cat new; ls /sys/class/net";
    fs::write(cache.host.cwd().join("file"), "").unwrap();
    let outcome = cache.host.run(
        &["--timeline", "--hostname", "web", "--cwd", "share"],
        &["sh", "-c", script],
    );
    let outcome = outcome.expect_code(0);
    assert!(is_taken(&outcome), "{}", outcome.err());
    let cwd = cache.host.cwd().display().to_string();
    assert_eq!(outcome.out(), format!("web\n{cwd}\nfile\nx\nlo\n"));
    assert!(!cache.host.cwd().join("new").exists(), "it was private");
    assert_eq!(cache.waiting().len(), 1);
    let code = cache.host.run(&["-q"], &["sh", "-c", "exit 7"]);
    code.expect_code(7);
    assert!(cache.waiting().is_empty());
    let (out, taken) = cache.run("echo none waits");
    assert_eq!((out.as_str(), taken), ("none waits\n", false));
    let gone = cache.host.virtc(["factory", "destroy", &names[0]]);
    gone.expect_code(1)
        .expect_err(&[&names[0], "does not exist"]);
    cache.close();
}

#[test]
fn a_taken_machine_has_the_hosts_clock_and_shares_no_random_number() {
    let cache = Cache::new();
    let mut seen = of_the_host();
    for _ in 0..compared(3) {
        let warm = cache.host.virtc(["factory", "warm", "-n", "1"]);
        warm.expect_code(0);
        let (out, err) = run_in_time(&cache.host, &["--timeline"], DRAW);
        assert!(is_of_a_taken_machine(&err), "{err}");
        expect_new(&mut seen, &out);
    }
    cache.close();
}

#[test]
fn changes_to_a_volume_reach_the_host() {
    let cache = Cache::warm(1);
    let directory = cache.host.dir("volume");
    fs::write(directory.join("in"), "from the host\n").unwrap();
    let volume = format!("{}:/data", directory.display());
    let outcome = cache.host.run(
        &["--timeline", "-v", &volume],
        &["sh", "-c", "cat /data/in; echo out >/data/out"],
    );
    let outcome = outcome.expect_code(0);
    assert!(is_taken(&outcome), "{}", outcome.err());
    assert_eq!(outcome.out(), "from the host\n");
    assert_eq!(fs::read_to_string(directory.join("out")).unwrap(), "out\n");
    cache.close();
}

#[test]
fn a_root_of_ones_own_takes_no_machine_that_has_the_hosts_system() {
    let cache = Cache::warm(1);
    let root = busybox_root(&cache.host);
    let run = || {
        let flags = ["--timeline", "--rootfs", root.to_str().unwrap()];
        let outcome = cache.host.run(&flags, &["cat", "/etc/marker"]);
        let outcome = outcome.expect_code(0);
        assert_eq!(outcome.out(), "made by the test\n");
        is_taken(&outcome)
    };
    assert!(!run());
    assert_eq!(cache.waiting().len(), 1);
    let warm = ["factory", "warm", "--rootfs", "-n", "1"];
    cache.host.virtc(warm).expect_code(0);
    assert!(run());
    assert_eq!(cache.waiting().len(), 1);
    cache.close();
}

/// When a file of the host was changed; it is so again when this is dropped.
struct Changed {
    file: fs::File,
    before: SystemTime,
}

impl Changed {
    fn at(path: &str, time: SystemTime) -> Self {
        let file = fs::File::open(path).unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        file.set_modified(time).unwrap();
        Self { file, before }
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let _ = self.file.set_modified(self.before);
    }
}

#[test]
fn what_changes_on_the_host_while_a_machine_waits_is_seen_by_whoever_takes_it() {
    let cache = Cache::warm(1);
    // The program that was rehearsed.
    let _changed = Changed::at(
        "/usr/bin/true",
        UNIX_EPOCH + Duration::from_secs(1_234_567_890),
    );
    let outcome = cache.host.run(
        &["--timeline"],
        &["stat", "-L", "-c", "%Y", "/usr/bin/true"],
    );
    let outcome = outcome.expect_code(0);
    assert!(is_taken(&outcome));
    assert_eq!(outcome.out(), "1234567890\n");
    cache.close();
}

#[test]
fn what_was_taken_is_made_again_behind_the_run() {
    let mut cache = Cache::new();
    cache.host.env("VIRTC_FACTORY_VM_CACHE_NUMBER", "2");
    let (_, taken) = cache.run("true");
    assert!(!taken, "nothing has waited yet");
    for _ in 0..2 {
        wait_for("machines that wait", || cache.waiting().len() == 2);
        let (out, taken) = cache.run("echo taken");
        assert_eq!((out.as_str(), taken), ("taken\n", true));
    }
    wait_for("machines that wait", || cache.waiting().len() == 2);
    let before = cache.waiting();
    // Those of another size take their room.
    cache.host.run(&["-m", "512m"], &["true"]).expect_code(0);
    wait_for("machines of another kind", || {
        let now = cache.waiting();
        now.len() == 2 && now.iter().all(|name| !before.contains(name))
    });
    cache.close();
}

#[test]
fn a_container_takes_what_waits_for_containers_and_leaves_nothing_of_it() {
    let mut cache = Cache::new();
    cache.host.env("VIRTC_FACTORY_ENABLE_TEMPLATE", "true");
    let warm = ["factory", "warm", "--containers", "-n", "1"];
    cache.host.virtc(warm).expect_code(0);
    // A throw-away VM is of another kind.
    let outcome = cache.host.run(&["--timeline"], &["true"]).expect_code(0);
    assert!(!is_taken(&outcome));
    let waits = || processes("qemu-system").remove(0).pid;
    let cgroup = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let qemu = waits();
    let create = |id: &str, sandbox_cgroup: &str| {
        let bundle = bundle(&cache.host, &["/bin/sleep", "1000"], |config| {
            config["linux"]["cgroupsPath"] = json!(cache.host.cgroup(id));
        });
        let output = |name: &str| fs::File::create(cache.host.cwd().join(name)).unwrap();
        let mut command = cache.host.command(["create", "--bundle"]);
        command
            .arg(bundle)
            .arg(id)
            .env("VIRTC_FACTORY_VM_CACHE_NUMBER", "1")
            .env("VIRTC_RUNTIME_SANDBOX_CGROUP", sandbox_cgroup)
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"));
        let made = command.status().unwrap();
        let err = fs::read_to_string(cache.host.cwd().join("stderr")).unwrap();
        assert!(made.success(), "{err}");
        cache.host.virtc(["start", id]).expect_code(0);
    };
    create("c1", "own");
    let its = cgroup(qemu);
    assert!(its.contains("virtcontainers/c1-"), "{its}");
    let ran = cache.host.virtc(["exec", "c1", "/bin/echo", "in it"]);
    assert_eq!(ran.expect_code(0).out(), "in it\n");
    wait_for("a machine that waits", || cache.waiting().len() == 1);
    // What stands for the container has had it made, and takes nothing of it along.
    cache.host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(cache.waiting().len(), 1);
    // Where it goes makes it no other kind.
    let qemu = waits();
    create("c2", "pod");
    let its = cgroup(qemu);
    let pods = cache.host.cgroup("virtc-c2-");
    assert!(its.contains(&pods), "{its}");
    wait_for("a machine that waits", || cache.waiting().len() == 1);
    cache.host.virtc(["delete", "--force", "c2"]).expect_code(0);
    cache.close();
}

#[test]
fn a_taken_machine_gets_the_links_of_a_network_namespace() {
    let cache = Cache::warm(1);
    let wire = Wire::new();
    let net = format!("ns:/run/netns/{}", wire.container);
    // Nobody listens there: a refusal comes from the neighbour.
    let script = "import errno, socket; s = socket.socket(); s.settimeout(10); \
                  print(errno.errorcode[s.connect_ex(('10.7.0.1', 9))], \
                  open('/sys/class/net/eth0/mtu').read())";
    let outcome = cache
        .host
        .run(&["--net", &net, "--timeline"], &["python3", "-c", script]);
    let outcome = outcome.expect_code(0);
    assert!(is_taken(&outcome), "{}", outcome.err());
    assert_eq!(outcome.out(), "ECONNREFUSED 1420\n\n");
    cache.close();
}

#[test]
fn two_runs_at_once_take_one_machine_once() {
    let cache = Cache::warm(1);
    let start = || cache.host.start(["run", "--timeline", "--", "echo", "ran"]);
    let both = [start(), start()];
    let outcomes = both.map(|run| run.wait().expect_code(0));
    let taken = outcomes.iter().filter(|outcome| is_taken(outcome)).count();
    assert_eq!(taken, 1);
    for outcome in &outcomes {
        assert_eq!(outcome.out(), "ran\n");
    }
    cache.close();
}

/// Ticks of the processors that a process and its threads have had.
fn ticks(process: &Process) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = fields.split_whitespace().collect();
    // User and system, fields 14 and 15 of proc(5).
    let number = |field: usize| fields[field - 3].parse::<u64>().unwrap();
    number(14) + number(15)
}

#[test]
fn a_machine_that_waits_has_nothing_of_whoever_had_it_made() {
    let mut cache = Cache::new();
    cache.host.env("VIRTC_FACTORY_VM_CACHE_NUMBER", "1");
    let (mut reader, writer) = std::io::pipe().unwrap();
    // As a shell has a descriptor that a script has opened.
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).unwrap();
    let mut command = cache.host.command(["run", "--", "true"]);
    command.env("TENANT", "secret");
    let run = cache.host.start_command(command);
    drop(writer);
    run.wait().expect_code(0);
    // Its end comes though the machine that is made now stays.
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert_eq!(read, b"");
    wait_for("a machine that waits", || cache.waiting().len() == 1);
    for process in processes("") {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        assert!(!environment.contains("secret"), "{process:?}");
    }
    cache.close();
}

#[test]
fn a_machine_that_waits_does_nothing() {
    let cache = Cache::warm(1);
    let all = processes("");
    assert!(all.len() >= 5, "{all:?}");
    let before: Vec<_> = all.iter().map(ticks).collect();
    std::thread::sleep(IDLE);
    for (process, before) in all.iter().zip(before) {
        let used = ticks(process) - before;
        // Its holder gives memory back once, when nothing happens any more.
        let allowed = match process.command.contains("internal hold") {
            true => 2 + IDLE_TICKS_MAX,
            false => IDLE_TICKS_MAX,
        };
        assert!(used <= allowed, "{used} ticks: {process:?}");
    }
    cache.close();
}

#[test]
fn a_machine_that_waits_and_dies_is_swept() {
    for part in ["qemu-system", "vsock-device", "internal hold"] {
        let cache = Cache::warm(1);
        let victims = processes(part);
        assert_eq!(victims.len(), 1, "{part}: {victims:?}");
        kill(&victims[0]);
        let left = cache.host.left();
        assert!(is_dead(&left), "{part}: {left:?}");
        assert!(cache.waiting().is_empty(), "{part}");
        let (out, taken) = cache.run("echo next");
        assert_eq!((out.as_str(), taken), ("next\n", false), "{part}");
        cache.close();
    }
}

#[test]
fn a_machine_that_nobody_can_find_any_more_ends() {
    for kind in [&[][..], &["--containers"]] {
        let cache = Cache::new();
        let warm = ["factory", "warm", "-n", "1"].iter().chain(kind);
        cache.host.virtc(warm).expect_code(0);
        fs::remove_dir_all(cache.root()).unwrap();
        let left = cache.host.left();
        assert!(left.is_empty(), "{kind:?}: {left:?}");
        cache.close();
    }
}

#[test]
fn when_a_part_of_a_taken_machine_dies_it_is_named() {
    for (part, named) in [
        ("qemu-system", "SIGKILL"),
        ("vsock-device", "vsock device process"),
        ("internal hold", "holder of the machine"),
    ] {
        let cache = Cache::warm(1);
        let mut running = cache.host.start(["run", "-q", "--", "cat"]);
        let _stdin = running.stdin();
        running.wait_until("a running container", |_| {
            let listed = cache.host.virtc(["list", "-f", "json"]).out();
            listed.contains("\"status\": \"running\"").then_some(())
        });
        assert!(cache.waiting().is_empty());
        kill(&processes(part)[0]);
        let outcome = running.wait().expect_code(125);
        outcome.expect_err(&[named]);
        cache.close();
    }
}

#[test]
fn a_machine_ends_with_whoever_took_it() {
    let cache = Cache::warm(1);
    let mut running = cache.host.start(["run", "-q", "--", "cat"]);
    let _stdin = running.stdin();
    running.wait_until("a running container", |_| {
        let listed = cache.host.virtc(["list", "-f", "json"]).out();
        listed.contains("\"status\": \"running\"").then_some(())
    });
    kill_process(Pid::from_raw(running.pid()).unwrap(), Signal::KILL).unwrap();
    assert_eq!(running.wait().code(), 128 + 9);
    let left = cache.host.left();
    assert!(is_dead(&left), "{left:?}");
    cache.close();
}

#[test]
fn gc_ends_what_nobody_can_use() {
    let cache = Cache::warm(1);
    let name = cache.waiting().remove(0);
    let kept = cache.host.virtc(["gc"]).expect_code(0);
    assert_eq!(kept.out(), "", "it can be used");
    fs::remove_dir_all(cache.library()).unwrap();
    let would = cache.host.virtc(["gc", "--dry-run"]).expect_code(0);
    assert!(would.out().contains(&name), "{}", would.out());
    assert_eq!(cache.waiting(), [name.as_str()]);
    let ended = cache.host.virtc(["gc"]).expect_code(0);
    assert!(
        ended.out().contains("its template is gone"),
        "{}",
        ended.out()
    );
    let left = cache.host.left();
    assert!(left.is_empty(), "{left:?}");
    cache.close();
}

#[test]
fn a_holder_that_is_killed_at_any_point_leaves_nothing_that_is_not_removed() {
    for point in Walk::Hold.points() {
        let mut cache = Cache::new();
        cache.host.fault(point, "kill");
        let warm = cache.host.virtc(["factory", "warm", "-n", "1"]);
        // The last one comes when it is taken.
        let made = *point == "hold.answered";
        assert_eq!(warm.code(), i32::from(!made), "{point}: {}", warm.err());
        cache.set_env();
        if !made {
            let left = cache.host.left();
            assert!(is_dead(&left), "{point}: {left:?}");
        }
        let (out, taken) = cache.run("echo next");
        assert_eq!((out.as_str(), taken), ("next\n", false), "{point}");
        assert!(cache.waiting().is_empty(), "{point}");
        cache.close();
    }
}

#[test]
fn a_run_that_is_killed_at_any_point_of_taking_leaves_nothing_that_the_next_one_does_not_remove() {
    for point in Walk::Take.points() {
        let mut cache = Cache::warm(1);
        cache.host.fault(point, "kill");
        cache.host.run(&[], &["true"]).expect_code(128 + 9);
        let left = cache.host.left();
        assert!(is_dead(&left), "{point}: {left:?}");
        cache.set_env();
        let (out, taken) = cache.run("echo next");
        assert_eq!((out.as_str(), taken), ("next\n", false), "{point}");
        assert!(!cache.root().exists(), "{point}");
        cache.close();
    }
}

#[test]
fn a_machine_that_does_not_serve_is_none() {
    for point in Walk::Take.points() {
        let mut cache = Cache::warm(1);
        cache.host.fault(point, "error");
        let outcome = cache.host.run(&["--timeline"], &["echo", "ran"]);
        // What cannot be shared with one machine cannot be shared with another.
        let fails = *point == "take.shared";
        let outcome = outcome.expect_code(if fails { 125 } else { 0 });
        if !fails {
            assert_eq!(outcome.out(), "ran\n", "{point}");
            assert!(!is_taken(&outcome), "{point}");
        }
        cache.host.virtc(["gc"]).expect_code(0);
        let left = cache.host.left();
        assert!(left.is_empty(), "{point}: {left:?}");
        cache.close();
    }
}
