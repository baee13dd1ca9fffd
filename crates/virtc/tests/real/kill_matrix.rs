//! Every command of the OCI command line, and what it starts, killed at every fault point: what is
//! left answers, and `delete --force` removes all of it.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use virtcontainers::fault::{VARIABLE, Walk};

use super::cli::{ADDED, Cli, END_LIMIT, LIMIT, STAYS, wait_for, wait_for_end};
use super::is_dead;

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
