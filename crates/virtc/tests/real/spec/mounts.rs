//! `config.md`: the root and the mounts.

use std::fs;

use serde_json::{Value, json};

use super::Machine;

fn push(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
}

/// The options of the last mount at a place, of the mount and of its file system.
fn options_at<'a>(mounts: &'a str, place: &str) -> Vec<&'a str> {
    let fields = |line: &'a str| line.split(' ').collect::<Vec<_>>();
    let mut all = mounts.lines().map(fields).rev();
    let mount = all.find(|fields| fields[1] == place).expect(place);
    mount[3].split(',').collect()
}

#[test]
fn the_root_is_the_bundles_and_is_written_only_where_it_may_be() {
    let machine = Machine::new();
    let root = machine.host.dir("root");
    let script = "cat /etc/marker; touch /written && echo w; touch /etc/written && echo w";
    let seen = machine.run(script, |config| config["root"]["readonly"] = json!(true));
    assert_eq!(seen.out(), "made by the test\n", "a root that is read-only");
    assert!(!root.join("written").exists());
    machine.out("touch /written", |_| {});
    assert!(root.join("written").exists(), "a root that is not");

    let absolute = root.to_str().unwrap();
    let seen = machine.out("cat /etc/marker", |config| {
        config["root"]["path"] = json!(absolute);
    });
    assert_eq!(seen, "made by the test\n", "an absolute path");
    machine.refuses(
        "a root that is not there",
        &["root.path", "missing"],
        |config| {
            config["root"]["path"] = json!("missing");
        },
    );
    machine.refuses("a root that is a file", &["root.path"], |config| {
        config["root"]["path"] = json!("config.json");
    });
    machine.end();
}

#[test]
fn mounts_are_made_in_the_order_of_their_list() {
    let machine = Machine::new();
    for name in ["a", "b"] {
        let directory = machine.host.dir(name);
        fs::create_dir(directory.join("below")).unwrap();
        fs::write(directory.join("file"), format!("{name}\n")).unwrap();
    }
    let a = machine.host.dir("a");
    let bind = |source: &str, destination: &str| {
        let options = ["rbind"];
        json!({"destination": destination, "type": "none", "source": source, "options": options})
    };
    let script = "cat /x/file /y/file; touch /x/below/of-tmpfs; ls /z; \
                  while read a b c d e; do case $b in /x*|/y|/z*) echo $b $c;; esac; \
                  done </proc/self/mounts";
    let out = machine.out(script, |config| {
        // What is deeper comes first too, and is covered; a relative source is the bundle's.
        for mount in [
            tmpfs("/z/deep", &[]),
            bind(a.to_str().unwrap(), "/x"),
            tmpfs("/x/below", &[]),
            bind("a", "/y"),
            bind("b", "/y"),
            tmpfs("/z", &[]),
        ] {
            push(config, mount);
        }
    });
    let expected = "a\nb\n/z/deep tmpfs\n/x virtiofs\n/x/below tmpfs\n/y virtiofs\n\
                    /y virtiofs\n/z tmpfs\n";
    assert_eq!(out, expected);
    let below = fs::read_dir(a.join("below")).unwrap().count();
    assert_eq!(below, 0, "the tmpfs is on the bind mount");
    machine.end();
}

/// Options, and what of them is seen: what the mount has, and what it has not.
const OPTIONS: &[(&[&str], &[&str], &[&str])] = &[
    (&[], &["rw"], &["nosuid", "nodev", "noexec"]),
    (&["defaults"], &["rw"], &["nosuid", "nodev", "noexec"]),
    (&["ro"], &["ro"], &["rw"]),
    (&["ro", "rw"], &["rw"], &["ro"]),
    (&["nosuid"], &["nosuid"], &[]),
    (&["nosuid", "suid"], &[], &["nosuid"]),
    (&["nodev"], &["nodev"], &[]),
    (&["nodev", "dev"], &[], &["nodev"]),
    (&["noexec"], &["noexec"], &[]),
    (&["noexec", "exec"], &[], &["noexec"]),
    (&["noatime"], &["noatime"], &["relatime"]),
    (&["noatime", "atime"], &[], &["noatime"]),
    (&["nodiratime"], &["nodiratime"], &[]),
    (&["nodiratime", "diratime"], &[], &["nodiratime"]),
    (&["relatime"], &["relatime"], &[]),
    (&["relatime", "norelatime"], &[], &["noatime"]),
    (&["strictatime"], &[], &["relatime", "noatime"]),
    (&["strictatime", "nostrictatime"], &[], &["noatime"]),
    (&["lazytime"], &["lazytime"], &[]),
    (&["lazytime", "nolazytime"], &[], &["lazytime"]),
    (&["async"], &[], &["sync"]),
    (&["silent", "loud", "iversion", "noiversion"], &["rw"], &[]),
];

/// Those that bind mounts have too.
const OF_MOUNTS: [&str; 8] = [
    "ro",
    "rw",
    "nosuid",
    "nodev",
    "noexec",
    "noatime",
    "nodiratime",
    "strictatime",
];

#[test]
fn options_of_mount_are_those_that_the_mount_has() {
    let machine = Machine::new();
    fs::create_dir_all(machine.host.dir("a").join("below")).unwrap();
    let of_binds = || {
        let all = OPTIONS.iter().enumerate();
        all.filter(|(_, (given, _, _))| given.iter().all(|one| OF_MOUNTS.contains(one)))
    };
    let out = machine.out("cat /proc/self/mounts", |config| {
        for (number, (given, _, _)) in OPTIONS.iter().enumerate() {
            push(config, tmpfs(&format!("/t{number}"), given));
        }
        for (number, (given, _, _)) in of_binds() {
            let options = [&["bind"][..], given].concat();
            let place = format!("/b{number}");
            push(
                config,
                json!({"destination": place, "source": "a", "options": options}),
            );
        }
    });
    let check = |place: &str, given: &[&str], has: &[&str], lacks: &[&str]| {
        let seen = options_at(&out, place);
        for option in has {
            assert!(seen.contains(option), "{place} of {given:?}: {seen:?}");
        }
        for option in lacks {
            assert!(!seen.contains(option), "{place} of {given:?}: {seen:?}");
        }
    };
    for (number, (given, has, lacks)) in OPTIONS.iter().enumerate() {
        check(&format!("/t{number}"), given, has, lacks);
    }
    for (number, (given, has, _)) in of_binds() {
        // What the share has, it keeps.
        check(&format!("/b{number}"), given, has, &[]);
    }
    machine.end();
}
