//! Makers of templates: two at once, killed, without room or memory, and what they leave.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::Signal;
use virtcontainers::fault::Walk;

use super::factory::Factory;
use super::is_dead;

#[test]
fn two_first_runs_at_once_make_one_template() {
    let factory = Factory::new();
    let start = || factory.host.start(["run", "--", "echo", "ran"]);
    let both = [start(), start()];
    for run in both {
        assert_eq!(run.wait().expect_code(0).out(), "ran\n");
    }
    factory.only_template();
    factory.expect_clean();
}

#[test]
fn a_kill_at_every_point_of_its_making_leaves_nothing_that_the_next_run_does_not_remove() {
    for point in Walk::Template.points() {
        let mut factory = Factory::new();
        factory.host.fault(point, "kill");
        factory.host.run(&[], &["true"]).expect_code(128 + 9);
        let left = factory.host.left();
        assert!(is_dead(&left), "{point}: {left:?}");
        factory.set_env();
        let (outcome, cloned) = factory.run("echo next");
        assert_eq!(
            (outcome.out().as_str(), cloned),
            ("next\n", true),
            "{point}"
        );
        factory.only_template();
        factory.expect_clean();
        factory.host.virtc(["gc"]).expect_code(0);
        factory.host.expect_nothing_left();
    }
}

#[test]
fn an_error_at_every_point_of_its_making_is_a_boot() {
    for point in Walk::Template.points() {
        let mut factory = Factory::new();
        factory.host.fault(point, "error");
        let outcome = factory.host.run(&["--timeline"], &["echo", "booted"]);
        let outcome = outcome.expect_code(0);
        assert_eq!(outcome.out(), "booted\n", "{point}");
        let err = outcome.err();
        assert!(err.contains("guest kernel began"), "{point}: {err}");
        factory.expect_clean();
    }
}

#[test]
fn without_room_a_vm_boots_and_the_log_says_why() {
    let mut factory = Factory::new();
    factory.host.env("VIRTC_FACTORY_MAX_BYTES", "16m");
    let log = factory.dir.path().join("log");
    let run = [
        "--log",
        log.to_str().unwrap(),
        "run",
        "--",
        "echo",
        "booted",
    ];
    let outcome = factory.host.virtc(run).expect_code(0);
    assert_eq!(outcome.out(), "booted\n");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("no room for a template"), "{log}");
    assert!(factory.templates().is_empty());
}

#[test]
fn a_directory_that_others_can_use_is_not_used() {
    let factory = Factory::new();
    fs::create_dir(factory.library()).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(factory.library(), open).unwrap();
    let outcome = factory.host.run(&["--timeline"], &["true"]).expect_code(0);
    assert!(
        outcome.err().contains("guest kernel began"),
        "{}",
        outcome.err()
    );
    assert_eq!(fs::read_dir(factory.library()).unwrap().count(), 0);
}

#[test]
fn a_maker_beside_another_one_boots_and_says_why() {
    let mut factory = Factory::new();
    factory.host.fault("template.begun", "stop");
    let mut first = factory.host.start(["run", "--", "echo", "first"]);
    let state = format!("/proc/{}/stat", first.pid());
    first.wait_until("a maker that stands still", |_| {
        let stat = fs::read_to_string(&state).unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        rest.starts_with('T').then_some(())
    });
    factory.set_env();
    let log = factory.dir.path().join("log");
    let flags = ["--debug", "--log", log.to_str().unwrap()];
    let run = ["run", "--timeline", "--", "echo", "second"];
    let second = factory.host.virtc(flags.iter().chain(&run)).expect_code(0);
    assert_eq!(second.out(), "second\n");
    assert!(
        second.err().contains("guest kernel began"),
        "{}",
        second.err()
    );
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("another process makes a template"), "{log}");
    assert!(factory.templates().is_empty());
    first.signal(Signal::CONT);
    assert_eq!(first.wait().expect_code(0).out(), "first\n");
    factory.only_template();
    factory.expect_clean();
}

#[test]
fn a_template_stays_where_a_vm_does_not_get_its_copy() {
    let mut factory = Factory::new();
    factory.run("true");
    let template = factory.only_template();
    factory.host.fault("template.memory-copied", "error");
    let (outcome, cloned) = factory.run("echo booted");
    assert_eq!((outcome.out().as_str(), cloned), ("booted\n", false));
    factory.set_env();
    assert_eq!(factory.only_template(), template);
    assert!(factory.run("true").1);
}

#[test]
fn only_its_owner_can_read_a_template_and_check_shows_it() {
    let factory = Factory::new();
    factory.run("true");
    let own = rustix::process::geteuid().as_raw();
    let look = |path: &Path, mode: u32| {
        let found = fs::metadata(path).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (own, mode), "{path:?}");
    };
    let template = factory.only_template();
    look(&factory.library(), 0o700);
    look(&template, 0o700);
    let files = fs::read_dir(&template).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        look(&file, 0o600);
    }
    let check = factory.host.virtc(["check"]).out();
    let line = check.lines().find(|line| line.contains("templates"));
    let library = factory.library();
    let shown = |line: &str| line.contains(" 1, ") && line.contains(library.to_str().unwrap());
    assert!(line.is_some_and(shown), "{check}");
}
