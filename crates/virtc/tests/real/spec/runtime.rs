//! `runtime.md`: the state, the life and the operations of a container.

use std::fs;

use serde_json::{Value, json};

use super::super::host;
use super::super::host_side::{create, state, wait_until};
use super::super::oci::bundle;
use super::try_create;

#[test]
fn an_operation_without_its_container_or_for_one_that_is_not_there_is_an_error() {
    let host = host();
    let directory = bundle(&host, &["/bin/true"], |_| {});
    let directory = directory.to_str().unwrap();
    let refused = |args: &[&str]| {
        let outcome = host.virtc(args);
        assert_ne!(outcome.code(), 0, "{args:?}");
        assert_ne!(outcome.err(), "", "{args:?}");
    };
    for operation in ["state", "create", "start", "kill", "delete"] {
        refused(&[operation]);
    }
    for operation in ["state", "start", "kill", "delete"] {
        refused(&[operation, "nobody"]);
    }
    refused(&["create", "c1"]);
    refused(&["create", "--bundle", "/nonexistent", "c1"]);
    for id in ["", ".", "..", "a/b", "a b"] {
        refused(&["create", "--bundle", directory, id]);
    }
    assert_eq!(host.virtc(["list", "-q"]).expect_code(0).out(), "");
}

#[test]
fn what_create_was_told_is_what_start_runs() {
    let host = host();
    let script = "echo first; cat /etc/marker; read x </etc/never 2>/dev/null; touch /ran";
    let directory = bundle(&host, &["/bin/sh", "-c", script], |config| {
        config["annotations"] = json!({"colour": "blue", "empty": ""});
        config["unknown"] = json!({"a": [1]});
        config["process"]["unknown"] = json!("b");
        config["linux"]["unknown"] = json!(3);
    });
    create(&host, &directory, "c1");
    let made = state(&host, "c1");
    assert_eq!(
        made["ociVersion"], "1.0.2",
        "the version that the state follows"
    );
    assert_eq!(made["id"], "c1", "the container's id");
    assert_eq!(made["status"], "created", "the status after create");
    assert!(made["pid"].as_i64().unwrap() > 1, "the pid: {made}");
    assert_eq!(
        made["bundle"],
        directory.to_str().unwrap(),
        "the bundle, absolute"
    );
    assert_eq!(
        made["annotations"],
        json!({"colour": "blue", "empty": ""}),
        "the annotations"
    );
    let ran = host.dir("root").join("ran");
    let out = || fs::read_to_string(directory.join("c1.out")).unwrap();
    assert!(
        !ran.exists() && out().is_empty(),
        "the program does not run"
    );

    // Neither a second one of its name nor another config.json changes it.
    bundle(&host, &["/bin/sh", "-c", "echo second"], |config| {
        config["annotations"] = json!({"colour": "red"});
    });
    let other = host.dir("other");
    fs::copy(directory.join("config.json"), other.join("config.json")).unwrap();
    std::os::unix::fs::symlink(host.dir("root"), other.join("root")).unwrap();
    let error = try_create(&host, &other, "c1").expect_err("an id is unique");
    assert!(error.contains("c1"), "{error}");
    assert_eq!(state(&host, "c1"), made, "the first one of the name");

    host.virtc(["start", "c1"]).expect_code(0);
    wait_until("the program ends", || {
        state(&host, "c1")["status"] == "stopped"
    });
    assert_eq!(out(), "first\nmade by the test\n", "the program of create");
    assert!(ran.exists());
    host.virtc(["delete", "c1"]).expect_code(0);
    host.virtc(["state", "c1"]).expect_code(1);
    assert!(
        ran.exists() && directory.join("config.json").exists(),
        "what create did not make stays"
    );
    // The name is free.
    let error = try_create(&host, &host.dir("empty"), "c1").expect_err("an empty bundle");
    assert!(error.contains("config.json"), "{error}");
}

#[test]
fn an_operation_that_the_status_does_not_allow_changes_nothing() {
    let host = host();
    let script = "trap 'echo term; exit 4' TERM; echo up; while :; do sleep 0.1; done";
    let directory = bundle(&host, &["/bin/sh", "-c", script], |_| {});
    create(&host, &directory, "c1");
    host.virtc(["start", "c1"]).expect_code(0);
    let out = || fs::read_to_string(directory.join("c1.out")).unwrap();
    wait_until("the program is up", || out() == "up\n");
    let running = state(&host, "c1");
    assert_eq!(running["status"], "running");
    let refused = |operation: &str, before: &Value| {
        host.virtc([operation, "c1"]).expect_code(1);
        assert_eq!(&state(&host, "c1"), before, "{operation}");
    };
    refused("start", &running);
    refused("delete", &running);
    assert_eq!(out(), "up\n", "no second program");

    host.virtc(["kill", "c1", "TERM"]).expect_code(0);
    wait_until("the signal is the program's", || out() == "up\nterm\n");
    wait_until("the program ends", || {
        state(&host, "c1")["status"] == "stopped"
    });
    let stopped = state(&host, "c1");
    assert_eq!(stopped["exitCode"], 4);
    assert_eq!(stopped.get("pid"), None, "no pid of what has ended");
    refused("start", &stopped);
    refused("kill", &stopped);
    host.virtc(["delete", "c1"]).expect_code(0);
}

#[test]
fn one_that_waits_for_its_start_gets_signals_too() {
    let host = host();
    let directory = bundle(&host, &["/bin/sh", "-c", "echo ran"], |_| {});
    create(&host, &directory, "c1");
    host.virtc(["kill", "c1", "KILL"]).expect_code(0);
    wait_until("it ends by the signal", || {
        state(&host, "c1")["status"] == "stopped"
    });
    host.virtc(["start", "c1"]).expect_code(1);
    assert_eq!(fs::read_to_string(directory.join("c1.out")).unwrap(), "");
    host.virtc(["delete", "c1"]).expect_code(0);
}
