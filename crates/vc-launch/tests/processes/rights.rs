use std::fs::File;

use serde_json::json;
use vc_launch::{Capability, PassedFd, ResourceLimit, User};

use crate::probe;

const CHOWN: u64 = 1;
const FOWNER: u64 = 1 << 3;

pub(crate) fn only_passed_descriptors_are_open() {
    // One that the parent forgot to close at exec.
    let leaked = File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let (spec, mut passed) = probe::spec(&[]);
    passed.push(PassedFd::at(5, File::open("/dev/null").unwrap()));
    passed.push(PassedFd::at(200, File::open("/dev/null").unwrap()));
    let said = probe::say(spec, passed);
    assert_eq!(said["descriptors"], json!([0, 1, 2, 5, 200]));
    assert_eq!(said["leads_session"], true);
}

pub(crate) fn an_unprivileged_process_has_nothing() {
    let (mut spec, passed) = probe::spec(&[]);
    spec.user = Some(User::NOBODY);
    spec.capabilities = Some(Vec::new());
    let said = probe::say(spec, passed);
    assert_eq!((&said["uid"], &said["gid"]), (&json!(65534), &json!(65534)));
    assert_eq!(said["groups"], json!([]));
    for set in ["permitted", "effective", "bounding"] {
        assert_eq!(said[set], 0, "{set}");
    }
    assert_eq!(said["no_new_privs"], true);
    assert_eq!(said["death_signal"], 9);
    assert_eq!(said["dumpable"], true);
}

pub(crate) fn root_keeps_only_what_is_named() {
    let (mut spec, passed) = probe::spec(&[]);
    spec.capabilities = Some(vec![Capability::Chown, Capability::Fowner]);
    let said = probe::say(spec, passed);
    assert_eq!(said["uid"], 0);
    for set in ["permitted", "effective", "bounding"] {
        assert_eq!(said[set], CHOWN | FOWNER, "{set}");
    }
    assert_eq!(said["death_signal"], 9);
}

pub(crate) fn another_user_keeps_what_is_named() {
    let (mut spec, passed) = probe::spec(&[]);
    spec.user = Some(User {
        uid: 1000,
        gid: 1001,
        groups: vec![7, 9],
    });
    spec.capabilities = Some(vec![Capability::Chown]);
    let said = probe::say(spec, passed);
    assert_eq!((&said["uid"], &said["gid"]), (&json!(1000), &json!(1001)));
    assert_eq!(said["groups"], json!([7, 9]));
    assert_eq!(
        (&said["effective"], &said["bounding"]),
        (&json!(CHOWN), &json!(CHOWN))
    );
    assert_eq!(said["death_signal"], 9);
}

pub(crate) fn the_environment_is_what_was_given() {
    let (mut spec, passed) = probe::spec(&[]);
    spec.env = vec![("A".into(), "b c".into())];
    spec.cwd = "/usr".into();
    let said = probe::say(spec, passed);
    assert_eq!(said["env"], json!(["A=b c"]));
    assert_eq!(said["cwd"], "/usr");
}

pub(crate) fn limits_are_set_or_lowered() {
    let (mut spec, passed) = probe::spec(&[]);
    spec.limits = vec![ResourceLimit::OpenFiles { up_to: 300 }];
    assert_eq!(probe::say(spec, passed)["open_files"], 300);
    let (mut spec, passed) = probe::spec(&[]);
    spec.limits = vec![ResourceLimit::OpenFiles { up_to: 1 << 20 }];
    assert!(probe::say(spec, passed)["open_files"].as_u64().unwrap() >= 1024);
}
