//! Hooks: `config.md`, and what `runtime.md` has to say of those that fail.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use test_vm::Host;

use super::super::host_side::{create, state, wait_until};
use super::super::oci::bundle;
use super::{Machine, member, try_create};

/// The kinds that are part of `create`, in their order.
const OF_CREATE: [&str; 3] = ["prestart", "createRuntime", "createContainer"];

/// Where hooks of the host write what they did.
fn log(host: &Host) -> PathBuf {
    host.dir("hooks").join("log")
}

/// What was written since the last time.
fn taken(host: &Host) -> String {
    let text = fs::read_to_string(log(host)).unwrap_or_default();
    let _ = fs::remove_file(log(host));
    text
}

/// A hook of the host that writes this word, and ends with this code.
fn hook(host: &Host, word: &str, code: u8) -> Value {
    let script = format!("echo {word} >>{}; exit {code}", log(host).display());
    json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
}

/// Two hooks of every kind of the host, of which the first one of `failing` fails.
fn hooks(host: &Host, failing: &str) -> Value {
    let kinds = OF_CREATE.iter().chain(&["poststart", "poststop"]);
    let of = |kind: &str| {
        let code = u8::from(kind == failing);
        let two = [("1", code), ("2", 0)];
        two.map(|(number, code)| hook(host, &format!("{kind}{number}"), code))
    };
    kinds
        .map(|kind| ((*kind).to_owned(), json!(of(kind))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// What of them runs when one fails that is part of `create`.
fn run_until(failing: &str) -> String {
    let mut lines = String::new();
    for kind in OF_CREATE {
        lines += &format!("{kind}1\n");
        if kind == failing {
            break;
        }
        lines += &format!("{kind}2\n");
    }
    lines + "poststop1\npoststop2\n"
}

#[test]
fn a_hook_of_create_that_fails_is_an_error_and_what_was_made_is_undone_with_the_last_hooks() {
    let machine = Machine::new();
    let host = &machine.host;
    for kind in OF_CREATE {
        let all = hooks(host, kind);
        machine.refuses(kind, &[kind], |config| config["hooks"] = all);
        assert_eq!(taken(host), run_until(kind), "{kind}");
    }
    machine.end();

    // The same where a machine is made for it.
    let mut host = super::super::host();
    let all = hooks(&host, "createRuntime");
    let directory = bundle(&host, &["/bin/true"], |config| config["hooks"] = all);
    let error = try_create(&host, &directory, "c1").expect_err("a hook fails");
    assert!(error.contains("createRuntime"), "{error}");
    host.virtc(["state", "c1"]).expect_code(1);
    assert_eq!(taken(&host), run_until("createRuntime"));
    host.expect_nothing_left();
}

#[test]
fn a_hook_of_the_container_that_fails_ends_it_before_its_program() {
    let machine = Machine::new();
    let host = &machine.host;
    let directory = bundle(host, &["/bin/sh", "-c", "echo ran"], |config| {
        member(config);
        let all = hooks(host, "");
        config["hooks"] = all;
        let inside = |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        config["hooks"]["startContainer"] = json!([
            inside("test -e /etc/marker && exit 7"),
            inside("touch /second")
        ]);
    });
    create(host, &directory, "c1");
    let made = "prestart1\nprestart2\ncreateRuntime1\ncreateRuntime2\n\
                createContainer1\ncreateContainer2\n";
    assert_eq!(taken(host), made, "each in its order, as part of create");
    host.virtc(["start", "c1"])
        .expect_code(1)
        .expect_err(&["startContainer"]);
    wait_until("it ends", || state(host, "c1")["status"] == "stopped");
    assert_ne!(state(host, "c1")["exitCode"], 0);
    let out = fs::read_to_string(directory.join("c1.out")).unwrap();
    assert_eq!(out, "", "the program does not run");
    assert!(!host.dir("root").join("second").exists(), "no further hook");
    assert_eq!(taken(host), "", "no poststart hook");
    host.virtc(["delete", "c1"]).expect_code(0);
    assert_eq!(taken(host), "poststop1\npoststop2\n");
    machine.end();
}

#[test]
fn a_late_hook_that_fails_is_a_warning_and_the_next_one_runs() {
    let machine = Machine::new();
    let host = &machine.host;
    let directory = |failing: &str| {
        let all = hooks(host, failing);
        bundle(host, &["/bin/true"], |config| {
            member(config);
            config["hooks"] = all;
        })
    };
    for failing in ["poststart", "poststop"] {
        create(host, &directory(failing), "c1");
        taken(host);
        let started = host.virtc(["start", "c1"]).expect_code(0);
        // Before start returns.
        assert_eq!(taken(host), "poststart1\npoststart2\n", "{failing}");
        wait_until("it ends", || state(host, "c1")["status"] == "stopped");
        assert_eq!(taken(host), "", "poststop hooks are part of delete");
        let deleted = host.virtc(["delete", "c1"]).expect_code(0);
        assert_eq!(taken(host), "poststop1\npoststop2\n", "{failing}");
        let warned = match failing {
            "poststart" => started,
            _ => deleted,
        };
        warned.expect_err(&[failing]);
        host.virtc(["state", "c1"]).expect_code(1);
    }
    machine.end();
}
