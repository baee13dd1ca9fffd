//! What is decided and sent; a real guest grows in the tests of virtc.

use serde_json::json;

use super::*;

fn growth() -> Growth {
    let size = |vcpus, mib| VmSize {
        vcpus,
        memory: ByteSize::from_mib(mib),
    };
    Growth {
        first: size(1, 512),
        largest: size(4, 1500),
    }
}

/// As QEMU 7.2 lists them: the last one first.
fn cpus(there: usize, all: usize) -> Vec<HotpluggableCPU> {
    let cpu = |index: usize| {
        let path = (index < there).then(|| format!("/machine/unattached/device[{index}]"));
        let mut cpu = json!({
            "props": { "core-id": index, "thread-id": 0, "node-id": 0, "socket-id": 0 },
            "vcpus-count": 1,
            "type": "max-x86_64-cpu",
        });
        if let Some(path) = path {
            cpu["qom-path"] = path.into();
        }
        serde_json::from_value(cpu).unwrap()
    };
    (0..all).rev().map(cpu).collect()
}

#[test]
fn processors_come_in_their_order_and_never_twice() {
    let come = |there, wanted| {
        let cpus = cpus(there, 4);
        let come = missing(&cpus, wanted).map(|cpu| cpu.props.core_id.unwrap());
        come.collect::<Vec<_>>()
    };
    assert_eq!(come(1, 3), [1, 2]);
    assert_eq!(come(2, 4), [2, 3]);
    assert_eq!(come(1, 9), [1, 2, 3]);
    assert!(come(3, 2).is_empty() && come(4, 4).is_empty());
}

#[test]
fn a_processor_is_named_by_its_place() {
    let cpus = cpus(1, 2);
    let command = serde_json::to_value(commands::cpu(&cpus[0])).unwrap();
    let sent = json!({
        "driver": "max-x86_64-cpu", "id": "cpu-0-1-0", "socket-id": 0, "core-id": 1, "thread-id": 0,
    });
    assert_eq!(command, sent);
}

#[test]
fn memory_comes_in_the_guests_steps_as_far_as_there_is_room() {
    let asked = |mib| growth().more(ByteSize::from_mib(mib)).mib();
    assert_eq!(asked(100), 0);
    assert_eq!(asked(512), 0);
    assert_eq!(asked(513), 128);
    assert_eq!(asked(768), 256);
    assert_eq!(asked(1500), 896, "no part of a step");
    assert_eq!(asked(9000), 896);
    let size = |gib: u32| VmSize {
        vcpus: 1,
        memory: ByteSize::from_mib(gib << 10),
    };
    let large = Growth {
        first: size(64),
        largest: size(127),
    };
    assert_eq!(large.more(size(65).memory), size(2).memory);
    assert_eq!(large.room(), size(62).memory);
}

#[test]
fn a_guest_is_told_only_of_what_may_come() {
    let params = |vcpus, mib, accelerator| {
        let largest = VmSize {
            vcpus,
            memory: ByteSize::from_mib(mib),
        };
        let growth = Growth {
            largest,
            ..growth()
        };
        kernel_params(growth, accelerator).join(" ")
    };
    assert_eq!(params(1, 512, Accelerator::Tcg), "");
    assert_eq!(params(4, 512, Accelerator::Kvm), "");
    assert_eq!(params(4, 512, Accelerator::Tcg), MORE_PROCESSORS);
    let memory = format!("{PUT_TO_USE} {FEW_BOUNCES}");
    assert_eq!(params(4, 1024, Accelerator::Kvm), memory);
}
