//! The library on real virtual machines: the test is the keeper of its sandboxes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci_spec::runtime::Process as ProcessSpec;
use test_vm::Host;
use tokio::runtime::Builder;
use vc_config::Sources;
use vc_types::{ContainerId, ContainerState, EndReason, ExitStatus, SandboxState, Signal};
use virtcontainers::stream::{GuestWait, Streams};
use virtcontainers::{
    Access, ContainerConfig, Error, HostCgroup, ProcessConfig, Propagation, Root, RootSource,
    Runtime, RuntimeOptions, SandboxConfig, Scratch, Started, VmConfig, Volume, default_spec,
};

use super::{busybox_root, host};

/// A runtime whose sandboxes are the test's.
pub(super) fn runtime(host: &Host) -> Runtime {
    runtime_with(host, |_| ())
}

/// The same with another configuration.
pub(super) fn runtime_with(host: &Host, change: impl FnOnce(&mut vc_config::Config)) -> Runtime {
    let mut config = Sources::of_process(None).load().unwrap().config;
    config.runtime.root = host.root();
    config.runtime.failures = host.failures();
    // The first process of a pid namespace ignores polite signals.
    config.limits.stop_container_ms = vc_config::Millis(500);
    change(&mut config);
    Runtime::open(RuntimeOptions {
        config,
        program: env!("CARGO_BIN_EXE_virtc").into(),
        ..RuntimeOptions::default()
    })
    .unwrap()
}

pub(super) fn container(name: &str, root: &std::path::Path, args: &[&str]) -> ContainerConfig {
    let spec = default_spec(ProcessConfig {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        user: (0, 0, Vec::new()),
        terminal: false,
        capabilities: Vec::new(),
        read_only: false,
        hostname: None,
    });
    ContainerConfig {
        id: ContainerId::new(name).unwrap(),
        spec: spec.unwrap(),
        root: Root {
            source: RootSource::Directory(root.to_owned()),
            access: Access::Private,
        },
        volumes: Vec::new(),
        mounts: Vec::new(),
        files: Vec::new(),
        attach: true,
        bundle: None,
        stand_in: false,
        cgroup: None,
        hooks: None,
        empty_dirs: Vec::new(),
    }
}

pub(super) fn sandbox(name: &str, containers: Vec<ContainerConfig>) -> SandboxConfig {
    let config = Sources::of_process(None).load().unwrap().config;
    let host = vc_config::HostFacts::read().unwrap();
    SandboxConfig {
        id: name.parse().unwrap(),
        hostname: None,
        vm: VmConfig {
            kernel_params: Vec::new(),
            root_ports: 4,
            ..VmConfig::of(&config, &host, false)
        },
        scratch: Scratch::Memory { size: None },
        containers,
        shared_pids: false,
        endpoints: virtcontainers::EndpointConfig::default(),
        throw_away: false,
        host_system_later: false,
        annotations: BTreeMap::from([("owner".to_owned(), "a test".to_owned())]),
        network: virtcontainers::NetworkConfig::None,
        cgroup: HostCgroup::Own,
    }
}

pub(super) fn id(name: &str) -> ContainerId {
    ContainerId::new(name).unwrap()
}

/// What a process prints until its end, with an empty stdin.
pub(super) async fn output(streams: Streams) -> String {
    let read = tokio::task::spawn_blocking(move || {
        streams.stdin.finish().unwrap();
        let mut text = Vec::new();
        let wait = GuestWait::default();
        streams.stdout.copy_to(&mut text, &wait).unwrap();
        text
    });
    String::from_utf8(read.await.unwrap()).unwrap()
}

pub(super) fn exec(args: &[&str]) -> ProcessSpec {
    let mut process = ProcessSpec::default();
    process
        .set_args(Some(args.iter().map(|&arg| arg.to_owned()).collect()))
        .set_env(Some(vec!["PATH=/bin".into()]))
        .set_cwd("/".into())
        .set_terminal(Some(false));
    process
}

pub(super) fn on_executor(test: impl Future<Output = ()>) {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn a_second_container_has_its_own_settings_and_both_share_a_machine() {
    let host = host();
    let root = busybox_root(&host);
    on_executor(async {
        let runtime = runtime(&host);
        let config = sandbox(
            "pod",
            vec![
                container("first", &root, &["cat"]),
                container("second", &root, &["sh", "-c", "echo I am the second"]),
            ],
        );
        let sandbox = runtime.create_sandbox(config.clone()).await.unwrap();
        // Before anything is touched.
        let refused = runtime.create_sandbox(config).await.unwrap_err();
        assert!(
            matches!(refused, Error::Store(vc_store::Error::Exists { .. })),
            "{refused}"
        );
        assert_eq!(sandbox.status().unwrap().state, SandboxState::Ready);
        sandbox.start().await.unwrap();
        let second = sandbox.process(&id("second")).unwrap();
        let streams = sandbox.take_streams(&id("second"));
        assert!(streams.is_none(), "the process has them");
        let mut second = second;
        assert_eq!(
            output(second.take_streams().unwrap()).await,
            "I am the second\n"
        );
        assert!(second.wait().await.unwrap().status.is_success());
        let status = sandbox.status_container(&id("second")).unwrap();
        assert_eq!(status.state, ContainerState::Stopped);
        assert_eq!(status.exit, Some(ExitStatus::Code(0)));
        assert_eq!(
            sandbox.status_container(&id("first")).unwrap().state,
            ContainerState::Running
        );
        let unknown = sandbox.status_container(&id("third")).unwrap_err();
        assert!(unknown.is_not_found(), "{unknown}");
        assert_eq!(sandbox.annotations().unwrap()["owner"], "a test");

        let mut added = sandbox
            .enter_container(&id("first"), &exec(&["cat", "/etc/marker"]))
            .await
            .unwrap();
        assert_eq!(
            output(added.take_streams().unwrap()).await,
            "made by the test\n"
        );
        assert!(added.wait().await.unwrap().status.is_success());

        // By its name, as another process would.
        let ended = runtime
            .stop_container(sandbox.id(), &id("first"))
            .await
            .unwrap();
        assert!(matches!(
            ended,
            ExitStatus::Signal { .. } | ExitStatus::Code(_)
        ));
        assert!(!ended.is_success());
        sandbox.stop().await.unwrap();
        sandbox.delete().await.unwrap();
    });
}

#[test]
fn containers_come_and_go_and_the_last_one_does_not_end_the_sandbox() {
    let host = host();
    let root = busybox_root(&host);
    let volume = host.dir("volume");
    std::fs::write(volume.join("data"), "of the volume\n").unwrap();
    on_executor(async {
        let runtime = runtime(&host);
        let sandbox = runtime
            .create_sandbox(sandbox("pod", Vec::new()))
            .await
            .unwrap();
        for round in 0..3 {
            let mut config = container(
                "c1",
                &root,
                &["sh", "-c", "cat /data/data; echo more >>/new; cat /new"],
            );
            config.volumes.push(Volume {
                source: volume.clone(),
                destination: "/data".into(),
                access: Access::ReadOnly,
                propagation: Propagation::Private,
            });
            let mut process = sandbox.create_container(config.clone()).await.unwrap();
            let again = sandbox.create_container(config).await.unwrap_err();
            assert!(matches!(again, Error::ContainerExists { .. }), "{again}");
            sandbox.start_container(&id("c1")).await.unwrap();
            let said = output(process.take_streams().unwrap()).await;
            // Nothing of the one before.
            assert_eq!(said, "of the volume\nmore\n", "round {round}");
            assert!(process.wait().await.unwrap().status.is_success());
            sandbox.delete_container(&id("c1"), false).await.unwrap();
            assert!(sandbox.status().unwrap().containers.is_empty());
        }
        // One that was never started goes too.
        sandbox
            .create_container(container("idle", &root, &["sleep", "60"]))
            .await
            .unwrap();
        sandbox.delete_container(&id("idle"), false).await.unwrap();
        // One that runs needs force.
        sandbox
            .create_container(container("busy", &root, &["sleep", "60"]))
            .await
            .unwrap();
        sandbox.start_container(&id("busy")).await.unwrap();
        let refused = sandbox
            .delete_container(&id("busy"), false)
            .await
            .unwrap_err();
        assert!(
            matches!(refused, Error::ContainerRunning { .. }),
            "{refused}"
        );
        runtime
            .delete_container(sandbox.id(), &id("busy"), true)
            .await
            .unwrap();

        // The guest has nothing left of them, and the host's share neither.
        let mut looks = sandbox
            .create_container(container("looks", &root, &["cat", "/proc/mounts"]))
            .await
            .unwrap();
        sandbox.start_container(&id("looks")).await.unwrap();
        output(looks.take_streams().unwrap()).await;
        sandbox.delete_container(&id("looks"), true).await.unwrap();
        let missing = container("missing", &PathBuf::from("/no/such/root"), &["true"]);
        let error = sandbox.create_container(missing).await.unwrap_err();
        assert!(matches!(error, Error::Storage(_)), "{error}");
        assert!(sandbox.status().unwrap().containers.is_empty());
        sandbox.stop().await.unwrap();
        sandbox.delete().await.unwrap();
    });
}

#[test]
fn a_stopped_sandbox_boots_again_with_its_containers() {
    let host = host();
    let root = busybox_root(&host);
    on_executor(async {
        let runtime = runtime(&host);
        let config = sandbox("pod", vec![container("c1", &root, &["sleep", "60"])]);
        let sandbox = runtime.run_sandbox(config).await.unwrap();
        let name = sandbox.id().clone();
        assert_eq!(sandbox.status().unwrap().state, SandboxState::Running);
        let refused = runtime.start_sandbox(&name).await.unwrap_err();
        assert!(matches!(refused, Error::Types(_)), "{refused}");
        // By its name: this process keeps it, and sees its end.
        runtime.stop_sandbox(&name, false).await.unwrap();
        assert_eq!(sandbox.ended().await, EndReason::Requested);
        drop(sandbox);
        let view = virtcontainers::View::of(&runtime.status_sandbox(&name).unwrap());
        assert_eq!(view.state, SandboxState::Stopped);
        assert_eq!(view.end_reason, Some(EndReason::Requested));
        assert!(
            !view.containers[&id("c1")]
                .exit
                .as_ref()
                .unwrap()
                .is_success()
        );
        runtime.stop_sandbox(&name, false).await.unwrap();
        // As a machine leaves it that was taken while it waited: nobody of this process made it.
        let directory = runtime.sandbox_directory(&name).unwrap();
        std::fs::write(directory.join("qmp.sock"), "").unwrap();

        let Started::Kept(sandbox) = runtime.start_sandbox(&name).await.unwrap() else {
            panic!("nobody else keeps it");
        };
        let view = sandbox.status().unwrap();
        assert_eq!(view.state, SandboxState::Running);
        assert_eq!(view.containers[&id("c1")].state, ContainerState::Running);
        let mut added = sandbox
            .enter_container(&id("c1"), &exec(&["echo", "here again"]))
            .await
            .unwrap();
        assert_eq!(output(added.take_streams().unwrap()).await, "here again\n");
        sandbox
            .kill_container(&id("c1"), Signal::KILL, true)
            .await
            .unwrap();
        let exit = sandbox.wait_process(&id("c1")).await.unwrap();
        assert_eq!(exit.status.shell_code(), 137);
        sandbox.stop().await.unwrap();
        sandbox.delete().await.unwrap();
        assert!(runtime.list_sandbox().unwrap().is_empty());
    });
}

#[test]
fn a_machine_that_crashed_is_no_success_of_its_containers() {
    let host = host();
    let root = busybox_root(&host);
    on_executor(async {
        let runtime = runtime(&host);
        let config = sandbox("pod", vec![container("c1", &root, &["sleep", "60"])]);
        let sandbox = runtime.run_sandbox(config).await.unwrap();
        let record = runtime.status_sandbox(sandbox.id()).unwrap();
        let vmm = record.vmm_process.unwrap();
        let watched = runtime.fetch_sandbox(sandbox.id()).await.unwrap();
        let pid = rustix::process::Pid::from_raw(vmm.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let reason = watched.monitor().await.unwrap();
        assert!(matches!(reason, EndReason::VmCrashed { .. }), "{reason}");
        let lost = sandbox.wait_process(&id("c1")).await.unwrap_err();
        assert!(matches!(lost, Error::Ended { .. }), "{lost}");
        let status = runtime.status_container(sandbox.id(), &id("c1")).unwrap();
        assert_eq!(status.state, ContainerState::Stopped);
        assert_eq!(status.exit.unwrap().shell_code(), 137);
        assert!(matches!(
            status.end_reason,
            Some(EndReason::VmCrashed { .. })
        ));
        runtime
            .cleanup_container(sandbox.id(), &id("c1"), true)
            .await
            .unwrap();
        assert!(runtime.list_sandbox().unwrap().is_empty());
    });
}

/// How many containers are made one after the other, four at a time; the soak sets more.
const CONTAINERS: &str = "VIRTC_TEST_CONTAINERS";

/// Memory by which a process may grow that is asked for the same again and again, in KiB: what the
/// allocator keeps for threads that have ended is among it.
const GROWTH_KIB_MAX: u64 = 4096;

/// How long what comes and goes with use may take to go: a thread that waits for work ends after ten
/// seconds without.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// Between two looks at it.
const SETTLE_RETRY: Duration = Duration::from_millis(200);

/// What of a long-lived process must not grow.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    mounts: usize,
    threads: usize,
    memory_kib: u64,
}

impl Held {
    /// By a process with a mount namespace of its own.
    fn by(process: &str) -> Self {
        Self::counting(process, "")
    }

    /// By this process, whose mount namespace others change too.
    fn by_own(host: &Host) -> Self {
        Self::counting("self", &host.root().display().to_string())
    }

    fn counting(process: &str, mounts_of: &str) -> Self {
        let at = |name: &str| format!("/proc/{process}/{name}");
        let count = |name: &str| std::fs::read_dir(at(name)).unwrap().count();
        let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
        let status = read("status");
        let memory = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let memory = memory.unwrap().trim().trim_end_matches(" kB");
        Self {
            descriptors: count("fd"),
            mounts: read("mountinfo")
                .lines()
                .filter(|line| line.contains(mounts_of))
                .count(),
            threads: count("task"),
            memory_kib: memory.parse().unwrap(),
        }
    }

    /// Threads that wait for a disk come and go, with a descriptor or two.
    fn is_more_than(self, before: Self) -> bool {
        self.descriptors > before.descriptors + 4
            || self.mounts > before.mounts
            || self.threads > before.threads + 4
            || self.memory_kib > before.memory_kib + GROWTH_KIB_MAX
    }
}

/// Calls `one` with so many numbers, four at a time, and looks at what `held` names before and after.
/// What is made once is made by the first four.
async fn again_and_again(one: impl AsyncFn(usize), held: impl Fn() -> Vec<(String, Held)>) {
    let count: usize = std::env::var(CONTAINERS).map_or(8, |count| count.parse().unwrap());
    let four = async |first: usize| {
        tokio::join!(one(first), one(first + 1), one(first + 2), one(first + 3));
    };
    four(0).await;
    let before = held();
    for number in (4..count + 4).step_by(4) {
        four(number).await;
    }
    let end = Instant::now() + SETTLE_LIMIT;
    for (number, (who, before)) in before.into_iter().enumerate() {
        loop {
            let after = held()[number].1;
            if !after.is_more_than(before) {
                break;
            }
            assert!(Instant::now() < end, "{who}: {before:?}, then {after:?}");
            tokio::time::sleep(SETTLE_RETRY).await;
        }
    }
}

const OUT: [&str; 3] = ["sh", "-c", "echo out; exit 3"];

#[test]
fn many_containers_one_after_the_other_leave_nothing_in_what_lives_on() {
    let host = host();
    let root = busybox_root(&host);
    on_executor(async {
        let runtime = runtime(&host);
        let config = sandbox("pod", Vec::new());
        let sandbox = runtime.create_sandbox(config).await.unwrap();
        let one = async |number: usize| {
            let name = format!("c{number}");
            let config = container(&name, &root, &OUT);
            let mut process = sandbox.create_container(config).await.unwrap();
            sandbox.start_container(&id(&name)).await.unwrap();
            assert_eq!(output(process.take_streams().unwrap()).await, "out\n");
            assert_eq!(process.wait().await.unwrap().status, ExitStatus::Code(3));
            sandbox.delete_container(&id(&name), false).await.unwrap();
        };
        let record = runtime.status_sandbox(sandbox.id()).unwrap();
        let devices: Vec<_> = record.processes.into_iter().collect();
        assert!(!devices.is_empty());
        let held = || {
            let of = |device: &vc_store::DeviceProcess| {
                let pid = device.identity.pid().to_string();
                (device.name.clone(), Held::by(&pid))
            };
            let own = ("keeper".to_owned(), Held::by_own(&host));
            devices.iter().map(of).chain([own]).collect()
        };
        again_and_again(one, held).await;
        sandbox.stop().await.unwrap();
        sandbox.delete().await.unwrap();
    });
}

#[test]
fn many_sandboxes_one_after_the_other_leave_nothing_in_who_made_them() {
    let mut host = host();
    let root = busybox_root(&host);
    on_executor(async {
        let runtime = runtime(&host);
        let one = async |number: usize| {
            let name = format!("s{number}");
            let config = sandbox(&name, vec![container("c", &root, &OUT)]);
            let sandbox = runtime.run_sandbox(config).await.unwrap();
            let exit = sandbox.wait_process(&id("c")).await.unwrap();
            assert_eq!(exit.status, ExitStatus::Code(3));
            sandbox.stop().await.unwrap();
            sandbox.delete().await.unwrap();
        };
        let held = || vec![("who made them".to_owned(), Held::by_own(&host))];
        again_and_again(one, held).await;
        assert!(runtime.list_sandbox().unwrap().is_empty());
    });
    host.expect_nothing_left();
}
