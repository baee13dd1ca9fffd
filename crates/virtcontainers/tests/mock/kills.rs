//! A process that is killed in the middle leaves what the next one removes.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use virtcontainers::fault::VARIABLE;
use virtcontainers::{Runtime, mock};

use super::{Host, container, id, on_executor, sandbox};

/// Where the process that is killed has its state.
const ROOT: &str = "VIRTCONTAINERS_TEST_ROOT";

/// The points that a sandbox without device processes passes.
const POINTS: [&str; 16] = [
    "create.reserved",
    "create.sockets",
    "create.vmm-launched",
    "create.agent-ready",
    "create.agent-connected",
    "create.guest-prepared",
    "create.container-made",
    "start.begun",
    "start.process-started",
    "start.written",
    "create-container.reserved",
    "create-container.shared",
    "create-container.made",
    "stop.begun",
    "stop.vmm-ended",
    "delete.state-removed",
];

#[test]
#[ignore = "the other test starts it, to be killed"]
fn whole_life() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let (runtime, _script) = mock::runtime(root.as_ref()).unwrap();
    on_executor(async {
        let config = sandbox("pod", vec![container("c1", &["server"])]);
        let pod = runtime.create_sandbox(config).await.unwrap();
        pod.start_container(&id("c1")).await.unwrap();
        let made = pod.create_container(container("c2", &["server"])).await;
        made.unwrap();
        pod.stop().await.unwrap();
        pod.delete().await.unwrap();
    });
}

#[test]
fn a_kill_at_every_point_leaves_only_what_gc_removes() {
    let own = std::env::current_exe().unwrap();
    for point in POINTS {
        let host = Host::new();
        let ended = Command::new(&own)
            .args(["--exact", "kills::whole_life", "--ignored"])
            .env(ROOT, host.root.path())
            .env(VARIABLE, format!("{point}:kill"))
            .output()
            .unwrap();
        assert_eq!(ended.status.signal(), Some(9), "{point}: {ended:?}");
        let runtime: &Runtime = &host.runtime;
        // Whoever looks sees no machine.
        for listed in runtime.list_sandbox().unwrap() {
            let record = runtime.status_sandbox(listed.id()).unwrap();
            let view = virtcontainers::View::of(&record);
            assert_eq!(view.state, vc_types::SandboxState::Stopped, "{point}");
        }
        let report = runtime.gc(false).unwrap();
        assert!(report.left.is_empty(), "{point}: {report:?}");
        host.assert_nothing_left();
    }
}
