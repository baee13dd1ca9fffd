//! Machines that grow with the limits of their containers, and give memory back.

use serde_json::{Value, json};
use test_vm::Host;

use super::factory::Factory;
use super::host;
use super::host_side::{create, wait_until};
use super::oci::bundle;

/// Processors and memory with which a machine begins.
const FIRST: [(&str, &str); 2] = [("VIRTC_VM_VCPUS", "1"), ("VIRTC_VM_MEMORY", "512m")];

/// Kilobytes of 512 MiB, and of half a GiB more: what a guest's kernel counts is a little less.
const FIRST_KB: u64 = 512 << 10;
const MORE_KB: u64 = 512 << 10;

/// Bytes of a limit that needs a GiB of memory, with what the guest takes itself.
const LARGE: &str = "750m";

fn small(host: &mut Host) {
    for (name, value) in FIRST {
        host.env(name, value);
    }
}

/// What the guest has: processors, and kilobytes of memory.
fn size(host: &Host) -> (u64, u64) {
    let read = host.virtc(["exec", "c1", "/bin/cat", "/proc/cpuinfo", "/proc/meminfo"]);
    let text = read.expect_code(0).out();
    let vcpus = text.lines().filter(|line| line.starts_with("processor"));
    let total = text.lines().find(|line| line.starts_with("MemTotal:"));
    let total = total.unwrap().split_whitespace().nth(1).unwrap();
    (vcpus.count() as u64, total.parse().unwrap())
}

/// A container with these resources, which runs.
fn container(host: &Host, resources: Value) {
    let directory = bundle(host, &["/bin/sleep", "1000"], |config| {
        config["linux"]["resources"] = resources;
    });
    create(host, &directory, "c1");
    host.virtc(["start", "c1"]).expect_code(0);
}

fn update(host: &Host, flags: &[&str]) {
    let args = ["update"].iter().chain(flags).chain(&["c1"]);
    host.virtc(args).expect_code(0);
}

#[test]
fn a_machine_grows_with_the_limits_of_its_container_and_gives_memory_back() {
    let mut host = host();
    small(&mut host);
    container(&host, json!({ "memory": { "limit": 64 << 20 } }));
    let (vcpus, first) = size(&host);
    assert_eq!(vcpus, 1);
    assert!(first < FIRST_KB, "{first}");

    update(&host, &["--memory", LARGE, "--memory-swap", LARGE]);
    let (_, grown) = size(&host);
    assert!(
        grown >= first + MORE_KB && grown < first + MORE_KB + 128,
        "{first} {grown}"
    );
    // It is memory that the container can use.
    let fill = ["dd", "if=/dev/zero", "of=/dev/null", "bs=600M", "count=1"];
    host.virtc(["exec", "c1", "/bin/busybox"].iter().chain(&fill))
        .expect_code(0);

    update(&host, &["--cpu-period", "100000", "--cpu-quota", "150000"]);
    assert_eq!(size(&host).0, 2);
    // The same again changes nothing.
    update(&host, &["--memory", LARGE, "--memory-swap", LARGE]);
    assert_eq!(size(&host), (2, grown));

    update(&host, &["--memory", "64m", "--memory-swap", "64m"]);
    wait_until("the guest to give memory back", || size(&host).1 == first);
    update(&host, &["--memory", LARGE, "--memory-swap", LARGE]);
    assert_eq!(size(&host), (2, grown));
    // Also while it is still giving back.
    update(&host, &["--memory", "64m", "--memory-swap", "64m"]);
    update(&host, &["--memory", LARGE, "--memory-swap", LARGE]);
    host.virtc(["exec", "c1", "/bin/busybox"].iter().chain(&fill))
        .expect_code(0);
    assert_eq!(size(&host), (2, grown));
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
}

#[test]
fn a_machine_never_grows_beyond_what_it_may() {
    let mut host = host();
    small(&mut host);
    host.env("VIRTC_VM_MEMORY_MAX", "768m");
    host.env("VIRTC_VM_VCPUS_MAX", "1");
    container(&host, json!({}));
    let (_, first) = size(&host);
    let huge = [
        "--memory",
        "64g",
        "--memory-swap",
        "64g",
        "--cpu-quota",
        "900000",
    ];
    update(&host, &huge);
    let (vcpus, grown) = size(&host);
    assert_eq!(vcpus, 1);
    assert!(
        grown >= first + MORE_KB / 2 && grown < first + MORE_KB / 2 + 128,
        "{first} {grown}"
    );
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
}

#[test]
fn a_container_with_limits_gets_a_machine_that_is_large_enough_however_it_comes() {
    let mut factory = Factory::new();
    small(&mut factory.host);
    factory.host.env("VIRTC_FACTORY_ENABLE_TEMPLATE", "true");
    let resources = json!({
        "memory": { "limit": 768 << 20 }, "cpu": { "quota": 150_000, "period": 100_000 },
    });
    let mut sizes = Vec::new();
    // A boot, whose template is made for the size with which machines begin; and a clone of it.
    for _ in 0..2 {
        container(&factory.host, resources.clone());
        sizes.push(size(&factory.host));
        factory
            .host
            .virtc(["delete", "--force", "c1"])
            .expect_code(0);
    }
    let warm = ["factory", "warm", "--containers", "-n", "1"];
    factory.host.virtc(warm).expect_code(0);
    assert_eq!(factory.ids("waiting-vm").len(), 1);
    container(&factory.host, resources);
    sizes.push(size(&factory.host));
    assert!(factory.ids("waiting-vm").is_empty(), "it was taken");
    factory
        .host
        .virtc(["delete", "--force", "c1"])
        .expect_code(0);
    for (vcpus, memory) in &sizes {
        assert_eq!(*vcpus, 2, "{sizes:?}");
        assert!(*memory > FIRST_KB + MORE_KB - (128 << 10), "{sizes:?}");
    }
    assert_eq!(factory.ids("template").len(), 1);
    factory.host.virtc(["factory", "destroy"]).expect_code(0);
}
