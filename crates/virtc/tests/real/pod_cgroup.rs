//! A machine in the cgroup of its pod: beside those of the containers, and gone with it.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use test_vm::{Host, descendants};

use super::host;
use super::host_side::{cgroups, create, state, wait_until};
use super::oci::bundle;

/// The cgroup of the container, below the test's own, which stands for the pod's.
const CONTAINER: &str = "box";

/// A host whose machines are in the cgroups of their pods, with a container.
fn host_with_container() -> Host {
    let mut host = host();
    host.env("VIRTC_RUNTIME_SANDBOX_CGROUP", "pod");
    let directory = bundle(&host, &["/bin/sleep", "1000"], |config| {
        config["linux"]["cgroupsPath"] = json!(host.cgroup(CONTAINER));
    });
    create(&host, &directory, "c1");
    host.virtc(["start", "c1"]).expect_code(0);
    host
}

/// The number of the process that stands for the container.
fn stand_in(host: &Host) -> i32 {
    i32::try_from(state(host, "c1")["pid"].as_i64().unwrap()).unwrap()
}

/// Where a process is, in each hierarchy.
fn of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
}

#[test]
fn the_machine_of_a_container_is_beside_it_in_the_pods_cgroup() {
    let host = host_with_container();
    let pid = stand_in(&host);
    let own = of(pid);
    let container = host.cgroup(CONTAINER);
    assert!(own.lines().all(|line| line.ends_with(&container)), "{own}");
    // All of them, in all hierarchies.
    let machine = descendants(pid);
    assert!(machine.len() >= 3, "{machine:?}");
    let beside = format!(":{}", host.cgroup("virtc-c1-"));
    for process in &machine {
        let its = of(process.pid);
        let name = &process.name;
        assert!(
            its.lines().all(|line| line.contains(&beside)),
            "{name} {its}"
        );
    }
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    // The host asserts that nothing is left of the pod's.
}

#[test]
fn a_pods_cgroup_is_emptied_of_a_machine_whose_keeper_was_killed() {
    let host = host_with_container();
    let pid = Pid::from_raw(stand_in(&host)).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    wait_until("the end of the container", || {
        state(&host, "c1")["status"] == "stopped"
    });
    host.virtc(["delete", "c1"]).expect_code(0);
    assert!(cgroups(&host.cgroup(CONTAINER)).is_empty());
}

#[test]
fn a_machine_in_a_pods_cgroup_is_found_without_its_state() {
    let host = host_with_container();
    let machine = descendants(stand_in(&host));
    fs::write(host.root().join("c1/state.json"), "{").unwrap();
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    wait_until("the end of the machine", || {
        let gone = |process: &test_vm::Process| !lives(process.pid);
        machine.iter().all(gone)
    });
    // Of what is left nothing is known any more: the container's cgroup, and the pod's above it.
    for path in [host.cgroup(CONTAINER), pod(&host)] {
        wait_until("the end of what stands for the container", || {
            let directories = cgroups(&path);
            directories.iter().all(|dir| fs::remove_dir(dir).is_ok())
        });
    }
}

/// The cgroup that stands for the pod's.
fn pod(host: &Host) -> String {
    let container = host.cgroup(CONTAINER);
    let (pod, _) = container.rsplit_once('/').unwrap();
    pod.to_owned()
}

/// Whether a process has not ended.
fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
    state.is_some_and(|state| state != "Z")
}
