//! Undoing what was attached, by others and when things have vanished.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use common::{need_root, pod};
use vc_network::{Attachment, Endpoint, InterworkingModel, Namespace, Scan, Undo};

/// With this, the program attaches `eth0` of the namespace at this path, and waits to be killed.
const NAMESPACE_VARIABLE: &str = "VC_NETWORK_TEST_NAMESPACE";
const MARK: &str = "the undo record: ";

fn stored(undo: &Undo) -> Undo {
    serde_json::from_str(&serde_json::to_string(undo).unwrap()).unwrap()
}

#[test]
fn it_can_be_undone_twice_and_before_anything_was_done() {
    need_root!();
    let pod = pod();
    let namespace = pod.inside.open();
    let before = pod.inside.snapshot();
    let attachment = pod.inside.plan();
    attachment.undo().undo(&namespace).unwrap();
    assert_eq!(pod.inside.snapshot(), before);
    let attached = attachment.attach(&namespace).unwrap();
    for _ in 0..2 {
        stored(&attached.undo).undo_at(pod.inside.path()).unwrap();
        assert_eq!(pod.inside.snapshot(), before);
    }
}

#[test]
fn it_is_undone_at_whichever_step_it_was_interrupted() {
    need_root!();
    let pod = pod();
    let before = pod.inside.snapshot();
    let undo = stored(pod.inside.plan().undo());
    let tap = serde_json::to_value(&undo).unwrap()["tap"].clone();
    let tap = tap.as_str().unwrap();
    let steps = [
        format!("ip tuntap add mode tap name {tap}"),
        format!("tc qdisc add dev {tap} ingress"),
        "tc qdisc add dev eth0 ingress".to_owned(),
    ];
    for last in 0..steps.len() {
        for step in &steps[..=last] {
            match step.split_once(' ').unwrap() {
                ("ip", command) => pod.inside.ip(command),
                (_, command) => pod.inside.tc(command),
            };
        }
        assert_ne!(pod.inside.snapshot(), before);
        undo.undo_at(pod.inside.path()).unwrap();
        assert_eq!(pod.inside.snapshot(), before);
    }
}

#[test]
fn it_is_undone_though_the_link_has_another_name() {
    need_root!();
    let pod = pod();
    let attached = pod.inside.plan().attach(&pod.inside.open()).unwrap();
    pod.inside.ip("link set eth0 down");
    pod.inside.ip("link set eth0 name other");
    attached.undo.undo_at(pod.inside.path()).unwrap();
    assert!(!pod.inside.tc("qdisc show").contains("ingress"));
    assert!(!pod.inside.ip("link").contains("vctap"));
}

#[test]
fn it_is_undone_after_the_link_vanished() {
    need_root!();
    let pod = pod();
    let attached = pod.inside.plan().attach(&pod.inside.open()).unwrap();
    pod.outside.ip("link del peer0");
    // Whoever has the link's index now keeps its qdisc.
    let index = serde_json::to_value(&attached.undo).unwrap()["index"].clone();
    pod.inside
        .ip(&format!("link add br0 index {index} type bridge"));
    pod.inside.tc("qdisc add dev br0 ingress");
    attached.undo.undo_at(pod.inside.path()).unwrap();
    assert!(!pod.inside.ip("link").contains("vctap"));
    assert!(pod.inside.tc("qdisc show dev br0").contains("ingress"));
}

#[test]
fn it_is_undone_after_the_tap_vanished() {
    need_root!();
    let pod = pod();
    let before = pod.inside.snapshot();
    let attached = pod.inside.plan().attach(&pod.inside.open()).unwrap();
    drop(attached.tap);
    assert_ne!(pod.inside.snapshot(), before);
    attached.undo.undo_at(pod.inside.path()).unwrap();
    assert_eq!(pod.inside.snapshot(), before);
}

#[test]
fn nothing_is_left_to_undo_after_the_namespace_vanished() {
    need_root!();
    let pod = pod();
    let path = pod.inside.path();
    let attached = pod.inside.plan().attach(&pod.inside.open()).unwrap();
    pod.inside.delete();
    attached.undo.undo_at(&path).unwrap();
    // What another namespace has, which is at the path now, is not what was attached.
    let other = common::pod();
    let theirs = other.inside.plan().attach(&other.inside.open()).unwrap();
    let before = other.inside.snapshot();
    attached.undo.undo_at(other.inside.path()).unwrap();
    assert_eq!(other.inside.snapshot(), before);
    // Nor is the host's.
    attached.undo.undo_at("/proc/self/ns/net").unwrap();
    drop(theirs);
}

#[test]
fn another_process_undoes_what_a_killed_one_has_done() {
    need_root!();
    let pod = pod();
    let before = pod.inside.snapshot();
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "a_process_that_attaches_and_waits",
            "--nocapture",
        ])
        .env(NAMESPACE_VARIABLE, pod.inside.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let undo = output
        .lines()
        .find_map(|line| Some(line.unwrap().split_once(MARK)?.1.to_owned()));
    child.kill().unwrap();
    child.wait().unwrap();
    let undo: Undo = serde_json::from_str(&undo.unwrap()).unwrap();
    assert_ne!(pod.inside.snapshot(), before);
    undo.undo_at(pod.inside.path()).unwrap();
    assert_eq!(pod.inside.snapshot(), before);
}

/// The other process of the test before. As a test, it does nothing.
#[test]
fn a_process_that_attaches_and_waits() {
    let Some(path) = env::var_os(NAMESPACE_VARIABLE) else {
        return;
    };
    let namespace = Namespace::open(path).unwrap();
    let link = Scan::of(&namespace).unwrap().links.remove(0);
    let endpoint = Endpoint::new(link).unwrap();
    let model = InterworkingModel::Tcfilter;
    let attachment = Attachment::plan(&namespace, &endpoint, model, 2).unwrap();
    let undo = serde_json::to_string(attachment.undo()).unwrap();
    let _attached = attachment.attach(&namespace).unwrap();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "\n{MARK}{undo}").unwrap();
    stdout.flush().unwrap();
    // Until it is killed, or nobody waits for it any more.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}
