//! The lives of sandboxes and containers.

use oci_spec::runtime::{LinuxMemoryBuilder, LinuxResourcesBuilder};
use vc_hypervisor::VmEnd;
use vc_types::{ContainerState, EndReason, ExitStatus, SandboxState, Signal};
use virtcontainers::mock::{Call, Program};
use virtcontainers::{DeviceConfig, Error, Interface, Started};

use super::{Host, container, exec, id, on_executor, sandbox, sandbox_id, talk};

#[test]
fn a_sandbox_goes_the_whole_way_and_leaves_nothing() {
    let host = Host::new();
    host.script
        .program("hello", Program::exiting(7).printing("hello\n"));
    on_executor(async {
        let config = sandbox("web", vec![container("main", &["hello"])]);
        let web = host.runtime.create_sandbox(config.clone()).await.unwrap();
        let refused = host.runtime.create_sandbox(config).await.unwrap_err();
        assert!(
            matches!(refused, Error::Store(vc_store::Error::Exists { .. })),
            "{refused}"
        );
        assert_eq!(web.status().unwrap().state, SandboxState::Ready);
        let streams = web.take_streams(&id("main")).unwrap();
        web.start().await.unwrap();
        assert_eq!(talk(streams, b"").await.0, "hello\n");
        let exit = web.wait_process(&id("main")).await.unwrap();
        assert_eq!(exit.status, ExitStatus::Code(7));
        let status = web.status_container(&id("main")).unwrap();
        assert_eq!(status.state, ContainerState::Stopped);
        assert_eq!(status.exit, Some(ExitStatus::Code(7)));
        assert_eq!(web.stop().await.unwrap(), EndReason::Requested);
        web.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn a_second_container_has_its_own_settings() {
    let host = Host::new();
    on_executor(async {
        let first = container("first", &["server", "--port", "80"]);
        let mut second = container("second", &["worker"]);
        let process = second.spec.process_mut().as_mut().unwrap();
        process.set_env(Some(vec!["QUEUE=jobs".into()]));
        process.set_cwd("/srv".into());
        let pod = host
            .runtime
            .run_sandbox(sandbox("pod", vec![first, second]));
        let pod = pod.await.unwrap();
        let guest = host.script.guest(pod.id());
        let seen = |name: &str| {
            let spec = guest.spec(&id(name)).unwrap();
            let process = spec.process().clone().unwrap();
            let args = process.args().clone().unwrap().join(" ");
            (
                args,
                process.env().clone().unwrap_or_default(),
                process.cwd().clone(),
            )
        };
        assert_eq!(
            seen("first"),
            ("server --port 80".into(), Vec::new(), "/".into())
        );
        assert_eq!(
            seen("second"),
            ("worker".into(), vec!["QUEUE=jobs".into()], "/srv".into())
        );
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn containers_come_and_go_and_can_be_acted_on_by_name() {
    let host = Host::new();
    host.script.program("cat", Program::echoing());
    host.script
        .program("stubborn", Program::running().ignoring(Signal::TERM));
    on_executor(async {
        let runtime = &host.runtime;
        let pod = runtime
            .run_sandbox(sandbox("pod", Vec::new()))
            .await
            .unwrap();
        let name = pod.id();
        let mut process = runtime
            .create_container(name, container("c1", &["stubborn"]))
            .await
            .unwrap();
        assert!(process.take_streams().is_some());
        runtime.start_container(name, &id("c1")).await.unwrap();

        let mut cat = runtime
            .enter_container(name, &id("c1"), &exec(&["cat"]))
            .await
            .unwrap();
        let listed = runtime.process_list_container(name, &id("c1")).await;
        assert_eq!(listed.unwrap().len(), 2);
        let streams = cat.take_streams().unwrap();
        assert_eq!(talk(streams, b"meow").await.0, "meow");
        assert_eq!(cat.wait().await.unwrap().status, ExitStatus::Code(0));
        let stats = runtime.stats_container(name, &id("c1")).await.unwrap();
        assert_eq!(stats.pids.current, 1);

        let memory = LinuxMemoryBuilder::default().limit(64_i64 << 20).build();
        let resources = LinuxResourcesBuilder::default()
            .memory(memory.unwrap())
            .build()
            .unwrap();
        runtime
            .update_container(name, &id("c1"), &resources)
            .await
            .unwrap();
        let given = host.script.guest(name).resources(&id("c1")).unwrap();
        assert_eq!(given.memory().unwrap().limit(), Some(64 << 20));

        runtime.pause_container(name, &id("c1")).await.unwrap();
        let refused = runtime
            .enter_container(name, &id("c1"), &exec(&["cat"]))
            .await;
        assert!(matches!(refused.unwrap_err(), Error::Agent(_)));
        // Going on is no start: only the resume does it.
        let refused = runtime.start_container(name, &id("c1")).await;
        assert!(matches!(refused, Err(Error::Types(_))), "{refused:?}");
        runtime.resume_container(name, &id("c1")).await.unwrap();
        let refused = runtime.delete_container(name, &id("c1"), false).await;
        assert!(matches!(refused, Err(Error::ContainerRunning { .. })));
        // It does not listen, and is killed.
        let exit = runtime.stop_container(name, &id("c1")).await.unwrap();
        assert!(
            matches!(exit, ExitStatus::Signal { signal: 9, .. }),
            "{exit:?}"
        );
        runtime
            .delete_container(name, &id("c1"), false)
            .await
            .unwrap();
        assert!(host.script.guest(name).containers().is_empty());
        let status = runtime.status_container(name, &id("c1")).unwrap_err();
        assert!(status.is_not_found());
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn a_stopped_sandbox_boots_again_with_its_containers() {
    let host = Host::new();
    on_executor(async {
        let runtime = &host.runtime;
        let config = sandbox("pod", vec![container("c1", &["server"])]);
        let pod = runtime.run_sandbox(config).await.unwrap();
        runtime.stop_sandbox(pod.id(), false).await.unwrap();
        // Whoever keeps it sees it.
        assert_eq!(pod.ended().await, EndReason::Requested);
        let record = runtime.status_sandbox(pod.id()).unwrap();
        assert_eq!(record.state, SandboxState::Stopped);
        drop(pod);
        let started = runtime.start_sandbox(&sandbox_id("pod")).await.unwrap();
        let Started::Kept(pod) = started else {
            panic!("nobody keeps it");
        };
        let status = pod.status_container(&id("c1")).unwrap();
        assert_eq!(status.state, ContainerState::Running);
        assert!(
            host.script
                .guest(pod.id())
                .end(&id("c1"), ExitStatus::Code(3))
        );
        let exit = pod.wait_process(&id("c1")).await.unwrap();
        assert_eq!(exit.status, ExitStatus::Code(3));
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn a_program_that_is_not_there_is_an_exit() {
    let host = Host::new();
    host.script.program("nope", Program::missing());
    on_executor(async {
        let config = sandbox("pod", vec![container("c1", &["nope"])]);
        let pod = host.runtime.run_sandbox(config).await.unwrap();
        let exit = pod.wait_process(&id("c1")).await.unwrap();
        assert_eq!(exit.status, ExitStatus::Code(127));
        assert!(exit.start_error.is_some());
        pod.delete().await.unwrap();
    });
}

#[test]
fn a_signal_to_what_has_ended_is_refused_and_the_state_says_so_too() {
    let host = Host::new();
    on_executor(async {
        let config = sandbox("pod", vec![container("c1", &["server"])]);
        let pod = host.runtime.run_sandbox(config).await.unwrap();
        // Nobody waits for it.
        let guest = host.script.guest(pod.id());
        assert!(guest.end(&id("c1"), ExitStatus::Code(3)));
        let status = pod.status_container(&id("c1")).unwrap();
        assert_eq!(status.state, ContainerState::Running);
        let refused = pod.kill_container(&id("c1"), Signal::KILL, false).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::ContainerEnded { .. }), "{refused}");
        let status = pod.status_container(&id("c1")).unwrap();
        assert_eq!(status.state, ContainerState::Stopped);
        assert_eq!(status.exit, Some(ExitStatus::Code(3)));
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn the_end_of_a_machine_is_seen_by_everybody() {
    let host = Host::new();
    on_executor(async {
        let config = sandbox("pod", vec![container("c1", &["server"])]);
        let pod = host.runtime.run_sandbox(config).await.unwrap();
        let fetched = host.runtime.fetch_sandbox(pod.id()).await.unwrap();
        let watched = pod.handle().clone();
        let monitor = tokio::spawn(async move { watched.monitor().await });
        let other = tokio::spawn(async move { fetched.wait_process(&id("c1")).await });
        let c1 = id("c1");
        let waited = pod.wait_process(&c1);
        let crash = async {
            let guest = host.script.guest(pod.id());
            guest.asked(Call::WaitProcess, 2).await;
            guest.machine().end(VmEnd::GuestPanicked);
        };
        let (waited, ()) = tokio::join!(waited, crash);
        assert!(matches!(waited.unwrap_err(), Error::Ended { .. }));
        let reason = monitor.await.unwrap().unwrap();
        assert!(matches!(reason, EndReason::VmCrashed { .. }), "{reason}");
        assert!(other.await.unwrap().is_err());
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn out_of_memory_is_told() {
    let host = Host::new();
    on_executor(async {
        let config = sandbox("pod", vec![container("c1", &["server"])]);
        let pod = host.runtime.run_sandbox(config).await.unwrap();
        host.script.guest(pod.id()).out_of_memory(&id("c1"));
        assert_eq!(pod.get_oom_event().await.unwrap(), id("c1"));
        pod.delete().await.unwrap();
    });
}

#[test]
fn a_machine_can_be_paused() {
    let host = Host::new();
    on_executor(async {
        let config = sandbox("pod", vec![container("c1", &["server"])]);
        let pod = host.runtime.run_sandbox(config).await.unwrap();
        pod.pause().await.unwrap();
        assert_eq!(pod.status().unwrap().state, SandboxState::Paused);
        assert!(pod.pause().await.is_err());
        pod.resume().await.unwrap();
        assert_eq!(pod.status().unwrap().state, SandboxState::Running);
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn what_is_not_there_yet_says_so_and_changes_nothing() {
    let host = Host::new();
    on_executor(async {
        let config = sandbox("web", Vec::new());
        let web = host.runtime.create_sandbox(config).await.unwrap();
        let before = host.runtime.status_sandbox(web.id()).unwrap();
        let card = DeviceConfig::Vfio {
            address: "0000:01:00.0".into(),
        };
        let interface = Interface {
            name: "eth0".into(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            addresses: Vec::new(),
        };
        let errors = [
            host.runtime.add_device(web.id(), &card).await.err(),
            host.runtime.add_interface(web.id(), &interface).await.err(),
            host.runtime
                .remove_interface(web.id(), &interface)
                .await
                .err(),
        ];
        for error in errors {
            let error = error.expect("it is not there");
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        }
        assert_eq!(host.runtime.status_sandbox(web.id()).unwrap(), before);
        let unknown = host.runtime.list_routes(&sandbox_id("nobody")).await;
        assert!(unknown.unwrap_err().is_not_found());
        web.delete().await.unwrap();
    });
    host.assert_nothing_left();
}
