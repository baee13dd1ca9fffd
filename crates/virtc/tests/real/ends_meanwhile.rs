//! What is done with a container whose process or machine ends meanwhile: engines end all of a pod at once.

use std::fs::{self, File};
use std::process::Stdio;

use rustix::process::Signal;
use virtcontainers::fault::VARIABLE;

use super::cli::{Cli, LIMIT, wait_for, wait_for_end};

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
