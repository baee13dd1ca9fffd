//! `config.md`: the process, and values that are no values.

use serde_json::{Value, json};

use super::Machine;

/// The lines of a file of /proc that begin with this.
fn lines<'a>(text: &'a str, beginning: &str) -> Vec<&'a str> {
    let found = text.lines().filter(|line| line.starts_with(beginning));
    found.collect()
}

#[test]
fn a_process_has_the_user_the_environment_and_the_directory_of_its_description() {
    let machine = Machine::new();
    let script = "echo \"$A|$B|$0|$1\"; pwd; id -u; id -g; id -G; umask; \
                  test -t 0 || echo no terminal; hostname; cat /proc/sys/kernel/domainname";
    let out = machine.out(script, |config| {
        let process = &mut config["process"];
        let args = process["args"].as_array_mut().unwrap();
        args.extend([json!("name"), json!("an argument")]);
        process["env"] = json!(["PATH=/bin", "A=1=2", "B="]);
        process["cwd"] = json!("/etc");
        process["user"] =
            json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 0o27});
        // Not a word of it: there is no terminal.
        process["consoleSize"] = json!({"height": 1, "width": 1});
        config["hostname"] = json!("of-the-member");
        config["domainname"] = json!("example.org");
    });
    let expected = "1=2||name|an argument\n/etc\n1000\n1001\n1001 5 7\n0027\nno terminal\n\
                    of-the-member\nexample.org\n";
    assert_eq!(out, expected);
    machine.end();
}

#[test]
fn a_process_has_the_limits_and_the_capabilities_of_its_description() {
    let machine = Machine::new();
    let script = "cat /proc/self/status /proc/self/limits; \
                  echo score $(cat /proc/self/oom_score_adj)";
    let outcome = machine.run(script, |config| {
        let process = &mut config["process"];
        process["user"] = json!({"uid": 1000, "gid": 1000});
        process["noNewPrivileges"] = json!(true);
        process["oomScoreAdj"] = json!(123);
        process["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 4096},
        ]);
        let set = ["CAP_CHOWN", "CAP_KILL"];
        process["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_OF_NOBODY"],
            "permitted": set, "effective": set, "inheritable": set, "ambient": ["CAP_KILL"],
        });
    });
    let warned = outcome.err();
    let out = outcome.expect_code(0).out();
    let has = |beginning: &str, value: &str| {
        let found = lines(&out, beginning);
        let fields = |line: &&str| line.split_whitespace().any(|field| field == value);
        assert!(found.iter().any(fields), "{beginning} {value}: {found:?}");
    };
    has("CapBnd:", "00000000000000a1");
    has("CapInh:", "0000000000000021");
    // Of an ordinary user, what execve leaves is what is ambient.
    has("CapAmb:", "0000000000000020");
    has("CapPrm:", "0000000000000020");
    has("CapEff:", "0000000000000020");
    assert!(
        warned.contains("CAP_OF_NOBODY"),
        "a capability that is not there is a warning: {warned:?}"
    );
    has("NoNewPrivs:", "1");
    has("Max open files", "100");
    has("Max open files", "200");
    has("Max core file size", "0");
    has("Max core file size", "4096");
    has("score", "123");

    let script = "cat /proc/self/status; echo score $(cat /proc/self/oom_score_adj)";
    let out = machine.out(script, |config| {
        config["process"]["noNewPrivileges"] = json!(false);
    });
    assert_eq!(lines(&out, "NoNewPrivs:"), ["NoNewPrivs:\t0"]);
    assert_eq!(lines(&out, "score"), ["score 0"], "no score of its own");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let expected = format!("{set}:\t0000000000000000");
        assert_eq!(lines(&out, set), [expected], "without capabilities");
    }
    machine.end();
}

#[test]
fn values_that_are_none_are_errors() {
    let machine = Machine::new();
    let limit = |kind: &str| json!({"type": kind, "soft": 1, "hard": 1});
    let hook = |hook: Value| json!({"createRuntime": [hook]});
    let refused: &[(&str, &[&str], &str, Value)] = &[
        (
            "a version of no form",
            &["ociVersion"],
            "/ociVersion",
            json!("one"),
        ),
        (
            "a version that is not there yet",
            &["2.0.0"],
            "/ociVersion",
            json!("2.0.0"),
        ),
        (
            "a directory that is relative",
            &["absolute"],
            "/process/cwd",
            json!("etc"),
        ),
        ("no arguments", &["args"], "/process/args", json!([])),
        (
            "a user that is no number",
            &["config.json"],
            "/process/user/uid",
            json!("root"),
        ),
        (
            "two limits of one type",
            &["process.rlimits", "two entries"],
            "/process/rlimits",
            json!([limit("RLIMIT_CORE"), limit("RLIMIT_CORE")]),
        ),
        (
            "a limit that no kernel has",
            &["RLIMIT_LUCK"],
            "/process/rlimits",
            json!([limit("RLIMIT_LUCK")]),
        ),
        (
            "a mount at a relative place",
            &["mounts.destination", "relative"],
            "/mounts",
            json!([{"destination": "relative", "type": "tmpfs", "source": "tmpfs"}]),
        ),
        (
            "a file system that no kernel has",
            &["nofs"],
            "/mounts",
            json!([{"destination": "/x", "type": "nofs", "source": "nofs"}]),
        ),
        (
            "an option that the file system does not have",
            &["/x"],
            "/mounts",
            json!([{"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["nonsense"]}]),
        ),
        (
            "an annotation that is no text",
            &["config.json"],
            "/annotations/colour",
            json!(3),
        ),
        (
            "a hook with a relative path",
            &["absolute"],
            "/hooks",
            hook(json!({"path": "sh"})),
        ),
        (
            "a hook without time",
            &["timeout"],
            "/hooks",
            hook(json!({"path": "/bin/true", "timeout": 0})),
        ),
    ];
    for (what, says, at, value) in refused {
        machine.refuses(what, says, |config| {
            set(config, at, value.clone());
        });
    }
    machine.end();
}

/// Puts a value at a place, which may be new in its object.
pub(super) fn set(config: &mut Value, at: &str, value: Value) {
    let (object, key) = at.rsplit_once('/').unwrap();
    config.pointer_mut(object).expect(at)[key] = value;
}
