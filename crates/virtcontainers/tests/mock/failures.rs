//! Steps that fail, hang, or lose their caller.

use std::time::Duration;

use tokio::time::timeout;
use vc_config::Millis;
use virtcontainers::mock::{self, Call, MachineStep, Script};
use virtcontainers::{Error, Runtime, Stage};

use super::{Host, container, id, on_executor, sandbox, sandbox_id};

/// What a start asks a guest for, and the stage that a failure of it is told as.
const STEPS: [(Call, Stage); 5] = [
    (Call::Ready, Stage::Boot),
    (Call::Hello, Stage::GuestPreparation),
    (Call::CreateSandbox, Stage::GuestPreparation),
    (Call::CreateContainer, Stage::ContainerCreation),
    (Call::Attach, Stage::ContainerCreation),
];

#[test]
fn a_start_that_fails_at_any_step_says_where_and_leaves_nothing() {
    let host = Host::new();
    on_executor(async {
        for (call, expected) in STEPS {
            let config = sandbox("pod", vec![container("c1", &["server"])]);
            host.script.guest(&config.id).fail(call, "no luck");
            let error = host.runtime.create_sandbox(config).await.unwrap_err();
            let Error::Start { stage, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(*stage, expected, "{call:?}");
            host.assert_nothing_left();
        }
        let config = sandbox("pod", vec![container("c1", &["server"])]);
        let guest = host.script.guest(&config.id);
        guest.machine().fail(MachineStep::Launch, "no memory");
        let error = host.runtime.create_sandbox(config).await.unwrap_err();
        assert!(matches!(
            error,
            Error::Start {
                stage: Stage::Launch,
                ..
            }
        ));
        host.assert_nothing_left();
    });
    // Each is kept for whoever looks.
    let kept = std::fs::read_dir(host.root.path().join("failures")).unwrap();
    assert_eq!(kept.count(), STEPS.len() + 1);
}

#[test]
fn a_start_that_hangs_ends_at_its_limit_and_leaves_nothing() {
    let host = Host::new();
    let script = Script::default();
    let mut options = mock::options(host.root.path(), &script);
    options.config.limits.agent_ready_ms = Millis(100);
    options.config.limits.agent_create_ms = Millis(100);
    options.config.limits.agent_call_ms = Millis(100);
    let runtime = Runtime::open(options).unwrap();
    on_executor(async {
        for (call, _) in STEPS {
            let config = sandbox("pod", vec![container("c1", &["server"])]);
            let guest = script.guest(&config.id);
            guest.hang(call);
            let error = runtime.create_sandbox(config).await.unwrap_err();
            assert!(matches!(error, Error::Start { .. }), "{call:?}: {error}");
            guest.release(call);
            host.assert_nothing_left();
        }
    });
}

#[test]
fn a_start_whose_caller_is_gone_leaves_nothing() {
    let host = Host::new();
    on_executor(async {
        for (call, _) in STEPS {
            let config = sandbox("pod", vec![container("c1", &["server"])]);
            let guest = host.script.guest(&config.id);
            guest.hang(call);
            let created = host.runtime.create_sandbox(config);
            tokio::select! {
                created = created => panic!("{created:?}"),
                () = guest.reached(call) => {}
            }
            host.assert_nothing_left();
            guest.release(call);
        }
    });
}

#[test]
fn a_run_whose_start_fails_leaves_nothing() {
    let host = Host::new();
    on_executor(async {
        let containers = vec![container("c1", &["server"]), container("c2", &["server"])];
        let config = sandbox("pod", containers);
        host.script
            .guest(&config.id)
            .fail(Call::StartContainer, "no luck");
        let error = host.runtime.run_sandbox(config).await.unwrap_err();
        assert!(matches!(error, Error::Agent(_)), "{error}");
    });
    host.assert_nothing_left();
}

#[test]
fn a_container_that_is_not_made_leaves_the_sandbox_as_it_was() {
    let host = Host::new();
    on_executor(async {
        let config = sandbox("pod", vec![container("c1", &["server"])]);
        let pod = host.runtime.run_sandbox(config).await.unwrap();
        let guest = host.script.guest(pod.id());
        guest.fail(Call::CreateContainer, "no luck");
        let made = pod.create_container(container("c2", &["server"])).await;
        assert!(matches!(made.unwrap_err(), Error::Agent(_)));
        assert_eq!(guest.containers(), ["c1"]);
        assert!(pod.status_container(&id("c2")).unwrap_err().is_not_found());
        let names = || -> Vec<_> {
            let directory = host.runtime.sandbox_directory(pod.id()).unwrap();
            let entries = std::fs::read_dir(directory).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        assert!(!names().iter().any(|name| name == "container:c2.json"));

        // A caller that goes away while it is made.
        guest.hang(Call::CreateContainer);
        let given_up = pod.create_container(container("c2", &["server"]));
        assert!(timeout(Duration::from_millis(50), given_up).await.is_err());
        guest.reached(Call::CreateContainer).await;
        guest.release(Call::CreateContainer);
        // The next operation comes after its removal.
        let made = pod.create_container(container("c3", &["server"])).await;
        made.unwrap();
        while pod.status().unwrap().containers.len() > 2 {
            tokio::task::yield_now().await;
        }
        let mut left = guest.containers();
        left.sort();
        assert_eq!(left, ["c1", "c3"]);
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn a_sandbox_that_is_dropped_is_gone() {
    let host = Host::new();
    on_executor(async {
        let config = sandbox("pod", vec![container("c1", &["server"])]);
        let pod = host.runtime.run_sandbox(config).await.unwrap();
        drop(pod);
        let status = host.runtime.status_sandbox(&sandbox_id("pod"));
        assert!(status.unwrap_err().is_not_found());
    });
    host.assert_nothing_left();
}
