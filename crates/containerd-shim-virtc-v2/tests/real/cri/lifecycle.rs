//! What becomes of the containers of a pod: order, ends, time limits, logs, numbers.

use std::fs;
use std::time::{Duration, Instant};

use k8s_cri::v1::{ContainerConfig, ContainerState, LinuxContainerResources, PodSandboxState};

use super::{Client, Containerd, Network, settings};

/// How long containerd may take to note that a container was started.
const START_TOLD_NS: i64 = 1_000_000_000;

const MIB: i64 = 1 << 20;

/// What all containers of a pod may use: more than a machine has by default.
const POD_MIB: i64 = 2400;

/// Ends with its own code when it is asked to.
const GRACEFUL: &str = "trap 'echo bye; exit 7' TERM; echo ready; sleep 1000 & wait";

/// Does not end when it is asked to.
const DEAF: &str = "trap '' TERM; echo ready; while :; do sleep 1; done";

/// Writes, and writes again once it may.
const TWICE: &str = "echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; \
                     echo two; echo bad >&2; exec sleep 1000";

/// The memory of a container's machine, as its guest counts it.
fn total_kib(client: &mut Client, container: &str) -> i64 {
    let line = client.say(container, "grep MemTotal: /proc/meminfo");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn limited(config: &mut ContainerConfig, memory: i64) {
    let linux = config.linux.get_or_insert_default();
    linux.resources = Some(LinuxContainerResources {
        memory_limit_in_bytes: memory,
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        ..LinuxContainerResources::default()
    });
}

#[test]
fn containers_of_a_pod_go_through_their_lives() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let logs = containerd.dir("logs");
    let mut client = Client::connect(&containerd, &logs);
    let log = |name: &str| fs::read_to_string(logs.join(name)).unwrap_or_default();
    let ended = |client: &mut Client, id: &str| {
        containerd.wait_for("the end of a container", || {
            client.container(id).state() == ContainerState::ContainerExited
        });
        let status = client.container(id);
        let (started, finished) = (status.started_at, status.finished_at);
        // containerd notes the start when it has been told of it. What ended meanwhile did so before.
        let told = finished + START_TOLD_NS;
        assert!(started > 0 && told >= started, "{started} {finished}");
        (status.reason, status.exit_code)
    };
    let made = client.try_run_pod("life", |config| {
        let linux = config.linux.get_or_insert_default();
        linux.resources = Some(LinuxContainerResources {
            memory_limit_in_bytes: POD_MIB * MIB,
            ..LinuxContainerResources::default()
        });
    });
    let pod = made.unwrap();
    // It is there without a container.
    assert_eq!(client.pod(&pod).state(), PodSandboxState::SandboxReady);
    assert!(client.containers(&pod).is_empty());

    // Containers that prepare end one after the other.
    for (name, code, reason) in [("init-1", 0, "Completed"), ("init-2", 3, "Error")] {
        let script = format!("exit {code}");
        let id = client.begin(&pod, name, &["sh", "-c", &script], |_| {});
        assert_eq!(ended(&mut client, &id), (reason.to_owned(), code));
        client.remove(&id);
    }

    // Logs say whose each line is; a log that was moved away is begun anew.
    let main = client.begin(&pod, "main", &["sh", "-c", TWICE], |config| {
        limited(config, 64 * MIB);
    });
    containerd.wait_for("the first lines", || log("main.log").contains("one"));
    let first = log("main.log");
    assert!(first.contains(" stdout F one\n"), "{first}");
    fs::rename(logs.join("main.log"), logs.join("main.log.1")).unwrap();
    client.reopen_log(&main);
    assert_eq!(client.say(&main, "touch /tmp/go"), "");
    // Two streams, in any order.
    containerd.wait_for("the later lines", || {
        let log = log("main.log");
        log.contains("two") && log.contains("bad")
    });
    let second = log("main.log");
    assert!(
        second.contains(" stdout F two\n") && second.contains(" stderr F bad\n"),
        "{second}"
    );
    assert!(!second.contains("one") && !log("main.log.1").contains("two"));

    // What the pod may use fits into its machine.
    let kib = total_kib(&mut client, &main);
    assert!(kib > POD_MIB << 10, "{kib}");

    // Its limits are there, and change while it runs.
    let limits = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max";
    assert_eq!(client.say(&main, limits), "67108864\n50000 100000");
    client.update(
        &main,
        LinuxContainerResources {
            memory_limit_in_bytes: 96 * MIB,
            cpu_period: 100_000,
            cpu_quota: 80_000,
            ..LinuxContainerResources::default()
        },
    );
    assert_eq!(client.say(&main, limits), "100663296\n80000 100000");
    let stats = client.stats(&main);
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);

    // Where it may use more than its machine has, that grows; and it gives that back.
    let resize = |client: &mut Client, mib: i64| {
        let resources = LinuxContainerResources {
            memory_limit_in_bytes: mib * MIB,
            ..LinuxContainerResources::default()
        };
        client.update(&main, resources);
    };
    resize(&mut client, POD_MIB + 512);
    assert_eq!(total_kib(&mut client, &main), kib + (512 << 10));
    resize(&mut client, 96);
    containerd.wait_for("the memory that is given back", || {
        total_kib(&mut client, &main) == kib
    });

    // One that takes more memory than it may is ended, and said to be.
    let greedy = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"];
    let id = client.begin(&pod, "greedy", &greedy, |config| {
        limited(config, 16 * MIB);
        let resources = config.linux.as_mut().unwrap().resources.as_mut();
        resources.unwrap().memory_swap_limit_in_bytes = 16 * MIB;
    });
    assert_eq!(ended(&mut client, &id), ("OOMKilled".to_owned(), 137));
    client.remove(&id);

    // A second attempt stands beside the first, which has ended.
    let graceful = client.begin(&pod, "graceful", &["sh", "-c", GRACEFUL], |_| {});
    containerd.wait_for("the handler", || log("graceful.log").contains("ready"));
    let began = Instant::now();
    client.stop(&graceful, 20);
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "it was not asked"
    );
    assert_eq!(ended(&mut client, &graceful), ("Error".to_owned(), 7));
    assert!(log("graceful.log").contains("bye"));
    let again = client.begin(&pod, "graceful", &["sh", "-c", DEAF], |config| {
        config.metadata.as_mut().unwrap().attempt = 1;
        config.log_path = "deaf.log".to_owned();
    });
    containerd.wait_for("the handler", || log("deaf.log").contains("ready"));
    assert_eq!(client.containers(&pod).len(), 3);
    let stats = client.all_stats(&pod);
    let used = stats.iter().filter(|one| one.memory.is_some());
    assert_eq!(used.count(), 2, "those that run");
    client.stop(&again, 1);
    assert_eq!(ended(&mut client, &again), ("Error".to_owned(), 137));
    client.remove(&again);
    client.remove(&graceful);

    // One that runs is removed all the same, and a program that is not there is an error.
    client.remove(&main);
    let id = client.create(&pod, "missing", &["/nonexistent"]);
    let error = client.try_start(&id).unwrap_err();
    assert!(error.message().contains("/nonexistent"), "{error}");
    let status = client.container(&id);
    assert_eq!(status.state(), ContainerState::ContainerExited);
    assert_eq!(status.reason, "StartError");
    client.remove(&id);
    // Once more without a container.
    assert!(client.containers(&pod).is_empty());
    assert_eq!(client.pod(&pod).state(), PodSandboxState::SandboxReady);
    for _ in 0..2 {
        client.stop_pod(&pod);
        assert_eq!(client.pod(&pod).state(), PodSandboxState::SandboxNotready);
    }
    for _ in 0..2 {
        client.remove_pod(&pod);
    }
    assert!(client.pods().is_empty());
}
