use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use vc_launch::{LaunchedProcess, Launcher, ProcessEnd};
use vc_types::{ProcessIdentity, Signal};

use crate::probe;

/// How long something may take that happens at once.
const AT_ONCE: Duration = Duration::from_secs(5);

fn sleeper(launcher: &Launcher) -> LaunchedProcess {
    let (spec, passed) = probe::spec(&["sleep"]);
    launcher.launch(spec, passed).wait().unwrap()
}

fn gone(identity: &ProcessIdentity) -> bool {
    let deadline = Instant::now() + AT_ONCE;
    while identity.is_alive() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    !identity.is_alive()
}

pub(crate) fn a_dropped_guard_kills_and_reaps() {
    let launcher = probe::launcher();
    let process = sleeper(&launcher);
    let identity = process.identity().unwrap();
    assert!(identity.is_alive());
    drop(process);
    let proc = format!("/proc/{}", identity.pid());
    assert!(!std::path::Path::new(&proc).exists(), "it was not reaped");
}

/// The process that is killed: starts one of its own, says its pid, and waits.
pub(crate) fn parent() -> ExitCode {
    let launcher = probe::launcher();
    let mut process = sleeper(&launcher);
    println!("{}", process.pid());
    let _ = process.wait();
    ExitCode::SUCCESS
}

pub(crate) fn a_killed_parent_takes_its_children_along() {
    let mut parent = Command::new("/proc/self/exe")
        .arg("parent")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let child = ProcessIdentity::of(line.trim().parse().unwrap()).unwrap();
    assert!(child.is_alive());
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(gone(&child));
}

pub(crate) fn a_dropped_launcher_takes_its_children_along() {
    let launcher = probe::launcher();
    let mut process = sleeper(&launcher);
    drop(launcher);
    let end = process.wait_timeout(AT_ONCE).unwrap();
    assert_eq!(end, Some(ProcessEnd::Signal(Signal::KILL)));
}

pub(crate) fn an_end_is_said_again() {
    let launcher = probe::launcher();
    let (spec, passed) = probe::spec(&["exit", "7"]);
    let mut process = launcher.launch(spec, passed).wait().unwrap();
    assert_eq!(process.wait().unwrap(), ProcessEnd::Code(7));
    assert_eq!(process.try_wait().unwrap(), Some(ProcessEnd::Code(7)));
    process.kill().unwrap();
    let mut process = sleeper(&launcher);
    assert_eq!(process.try_wait().unwrap(), None);
    process.signal(Signal::TERM).unwrap();
    assert_eq!(process.wait().unwrap(), ProcessEnd::Signal(Signal::TERM));
}

pub(crate) fn many_launches_run_side_by_side() {
    let launcher = probe::launcher();
    let pending: Vec<_> = (0..32)
        .map(|_| {
            let (spec, passed) = probe::spec(&["exit", "3"]);
            launcher.launch(spec, passed)
        })
        .collect();
    for launch in pending {
        let mut process = launch.wait().unwrap();
        assert_eq!(process.wait().unwrap(), ProcessEnd::Code(3));
    }
    let start = Instant::now();
    let (spec, passed) = probe::spec(&["exit", "3"]);
    let mut process = launcher.launch(spec, passed).wait().unwrap();
    println!("one launch took {:?}", start.elapsed());
    process.wait().unwrap();
}

pub(crate) fn a_dropped_launch_leaves_no_process() {
    let launcher = probe::launcher();
    let (spec, passed) = probe::spec(&["sleep"]);
    drop(launcher.launch(spec, passed));
    drop(launcher);
    let me = rustix::process::getpid().as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{me}/task/{me}/children"));
    if let Ok(children) = children {
        assert_eq!(children.trim(), "");
    }
}
