//! The shim killed at each point of what it does.

use virtcontainers::fault::Walk;

use super::Containerd;
use super::pod::{SANDBOX, member};
use super::soak::count;

/// Kills a shim at each point while a container is run to its end. What containerd knows and the host
/// has afterwards is removed by what users do.
fn killed_at(points: &[&str]) {
    let Some(mut containerd) = Containerd::new() else {
        return;
    };
    for point in points {
        containerd.restart_with_fault(Some(&format!("{point}:kill")));
        // What a daemon that is killed has left of a bundle keeps its name.
        let id = point.replace('.', "-");
        let run = containerd.run(&[], &id, &["true"]);
        assert!(!run.status.success(), "{point}: it was not killed");
        removed(&containerd, point, &[&id]);
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

/// What containerd knows of these after their shim was killed is removed by what users do, and then
/// nothing is left on the host.
fn removed(containerd: &Containerd, point: &str, ids: &[&str]) {
    for id in ids {
        // Where its start was told, so is its end; and where it was not, there is no task.
        containerd.wait_for(&format!("{point}: the end of task {id}"), || {
            containerd.state(id).is_none_or(|state| state == "STOPPED")
        });
        containerd.ctr(&["task", "rm", id]);
        containerd.ctr(&["container", "rm", id]);
        assert_eq!(containerd.state(id), None, "{point}");
    }
    let listed = containerd.done(&["container", "ls", "--quiet"]);
    assert_eq!(listed, "", "{point}");
    containerd.wait_for(&format!("{point}: the end of what it had"), || {
        containerd.left().is_empty()
    });
}

#[test]
fn a_shim_that_is_killed_while_it_adds_a_process_leaves_nothing() {
    let Some(mut containerd) = Containerd::new() else {
        return;
    };
    for point in Walk::TaskExec.points() {
        containerd.restart_with_fault(Some(&format!("{point}:kill")));
        // As above: a name of its own for each.
        let id = point.replace('.', "-");
        containerd.begin(&[], &id, &["sleep", "1000"]);
        let output = containerd.exec(&id, "e1", &["true"]);
        assert!(!output.status.success(), "{point}: it was not killed");
        removed(&containerd, point, &[&id]);
    }
}

#[test]
fn a_shim_that_is_killed_while_it_deletes_leaves_nothing() {
    let Some(mut containerd) = Containerd::new() else {
        return;
    };
    for point in Walk::TaskDelete.points() {
        containerd.restart_with_fault(Some(&format!("{point}:kill")));
        // As above: a name of its own for each.
        let id = point.replace('.', "-");
        let run = containerd.run(&[], &id, &["true"]);
        assert!(!run.status.success(), "{point}: it was not killed");
        removed(&containerd, point, &[&id]);
    }
}

#[test]
fn a_shim_that_is_killed_while_it_deletes_a_member_leaves_nothing() {
    let Some(mut containerd) = Containerd::new() else {
        return;
    };
    // Each needs a machine of its own: the soak takes all of them.
    let step = count("VIRTC_TEST_KILLS_STEP", 3);
    for point in Walk::TaskDeleteContainer.points().iter().step_by(step) {
        containerd.restart_with_fault(Some(&format!("{point}:kill")));
        let name = point.replace('.', "-");
        let (pod, id) = (format!("{name}-pod"), format!("{name}-a"));
        let flags = member(&pod);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        containerd.begin(&SANDBOX, &pod, &["sleep", "1000"]);
        let run = containerd.run(&flags, &id, &["true"]);
        assert!(!run.status.success(), "{point}: it was not killed");
        removed(&containerd, point, &[&id, &pod]);
    }
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
