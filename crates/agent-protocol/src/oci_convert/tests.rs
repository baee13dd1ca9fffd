//! A specification in normal form survives the way to the agent.

use oci_spec::runtime::Spec;
use protobuf::Message;

use super::*;
use crate::Error;

/// Every field that the message has, in its normal form.
const COMPLETE: &str = include_str!("complete.json");

fn complete() -> Spec {
    serde_json::from_str(COMPLETE).unwrap()
}

#[test]
fn a_complete_specification_comes_back_as_it_was() {
    let message = spec_to_message(&complete()).unwrap();
    let bytes = message.write_to_bytes().unwrap();
    let message = crate::oci::Spec::parse_from_bytes(&bytes).unwrap();
    assert_eq!(spec_from_message(&message).unwrap(), complete());
}

#[test]
fn no_field_of_the_message_is_left_out() {
    // Every field but the two systems that have none of ours is set by the complete example.
    let text = format!("{:?}", spec_to_message(&complete()).unwrap());
    for field in [
        "Umask: Some",
        "Burst: Some",
        "Idle: Some",
        "DefaultErrnoRet: Some",
    ] {
        assert!(text.contains(field), "{field} is not carried");
    }
    // `Solaris` and `Windows` stay absent.
    assert_eq!(text.matches("MessageField(None)").count(), 2, "{text}");
    assert_eq!(text.matches(": []").count(), 0, "{text}");
}

#[test]
fn a_second_round_changes_nothing() {
    let first = spec_from_message(&spec_to_message(&Spec::default()).unwrap()).unwrap();
    let second = spec_from_message(&spec_to_message(&first).unwrap()).unwrap();
    assert_eq!(first, second);
}

#[test]
fn what_has_no_field_is_refused_by_name() {
    for (pointer, value, name) in [
        (
            "/linux",
            serde_json::json!({"netDevices": {"eth0": {}}}),
            "linux.netDevices",
        ),
        (
            "/linux",
            serde_json::json!({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}}),
            "linux.memoryPolicy",
        ),
        (
            "/process",
            serde_json::json!({"cwd": "/", "user": {}, "execCPUAffinity": {"initial": "0"}}),
            "process.execCPUAffinity",
        ),
        (
            "/linux/seccomp",
            serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}),
            "linux.seccomp.listenerPath",
        ),
    ] {
        let mut json: serde_json::Value = serde_json::from_str(COMPLETE).unwrap();
        *json.pointer_mut(pointer).unwrap() = value;
        let spec: Spec = serde_json::from_value(json).unwrap();
        match spec_to_message(&spec) {
            Err(Error::Specification { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn words_that_are_not_known_are_refused() {
    let good = spec_to_message(&complete()).unwrap();
    let mut spec = good.clone();
    spec.Process
        .as_mut()
        .unwrap()
        .Capabilities
        .as_mut()
        .unwrap()
        .Bounding[0] = "CAP_X".into();
    assert!(spec_from_message(&spec).is_err());
    let mut spec = good.clone();
    spec.Linux.as_mut().unwrap().Namespaces[0].Type = "x".into();
    assert!(spec_from_message(&spec).is_err());
    let mut spec = good;
    spec.Linux
        .as_mut()
        .unwrap()
        .Seccomp
        .as_mut()
        .unwrap()
        .DefaultAction = "allow".into();
    assert!(spec_from_message(&spec).is_err());
}
