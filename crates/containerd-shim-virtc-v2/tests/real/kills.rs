//! The shim killed at each point of what it does.

use super::Containerd;

/// Kills a shim at each point while a container is run to its end. What containerd knows and the host
/// has afterwards is removed by what users do, and the name is free.
fn killed_at(points: &[&str]) {
    let Some(mut containerd) = Containerd::new() else {
        return;
    };
    for point in points {
        containerd.restart_with_fault(Some(&format!("{point}:kill")));
        let run = containerd.run(&[], "c1", &["true"]);
        assert!(!run.status.success(), "{point}: it was not killed");
        // Where its start was told, so is its end; and where it was not, there is no task.
        containerd.wait_for("the end of the task", || {
            containerd
                .state("c1")
                .is_none_or(|state| state == "STOPPED")
        });
        containerd.ctr(&["task", "rm", "c1"]);
        containerd.ctr(&["container", "rm", "c1"]);
        containerd.wait_for("the end of what it had", || containerd.left().is_empty());
    }
    containerd.restart_with_fault(None);
    let run = containerd.run(&[], "c1", &["echo", "again"]);
    assert_eq!(
        String::from_utf8_lossy(&run.stdout),
        "again\n",
        "{}",
        containerd.log()
    );
}

#[test]
fn a_shim_that_is_killed_while_it_launches_leaves_nothing() {
    killed_at(&[
        "create.reserved",
        "create.sockets",
        "create.vsock-launched",
        "create.shares-launched",
        "create.scratch-made",
        "create.vmm-launched",
    ]);
}

#[test]
fn a_shim_that_is_killed_while_it_creates_leaves_nothing() {
    killed_at(&[
        "create.agent-ready",
        "create.agent-connected",
        "create.guest-prepared",
        "create.container-made",
        "create.written",
    ]);
}

#[test]
fn a_shim_that_is_killed_while_it_starts_leaves_nothing() {
    killed_at(&["start.begun", "start.process-started", "start.written"]);
}
