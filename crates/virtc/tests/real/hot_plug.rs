//! Devices that come and go in a machine whose guest is a real one.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use vc_agent_client::network::InterfaceConfig;
use vc_agent_client::{AgentClient, CallLimits, Transport};
use vc_hypervisor::qemu::{self, QemuLimits};
use vc_hypervisor::{Disk, DriverState, HotDevice, Nic, NicBackend, Vm};
use vc_network::{MadeNamespace, Tap};
use virtcontainers::{DeviceConfig, Error, Runtime, Sandbox};

use super::library::{container, exec, id, on_executor, output, runtime, sandbox};
use super::{busybox_root, host};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x42];

const CALL: Duration = Duration::from_secs(30);

/// The VM as any other process takes hold of it.
fn vm(runtime: &Runtime, sandbox: &Sandbox) -> Box<dyn Vm> {
    let record = runtime.status_sandbox(sandbox.id()).unwrap();
    let state: DriverState = record.driver_state().unwrap().unwrap();
    qemu::attach(&state, QemuLimits::default()).unwrap()
}

/// What a shell in the container prints.
async fn shell(sandbox: &Sandbox, script: &str) -> String {
    let process = exec(&["sh", "-c", script]);
    let entered = sandbox.enter_container(&id("c"), &process).await;
    output(entered.unwrap().take_streams().unwrap()).await
}

/// Waits in the guest until a disk has this serial number, and prints its size in sectors and
/// whether it can only be read.
fn seen_disk(serial: &str) -> String {
    format!(
        "while :; do for d in /sys/block/vd*; do \
         [ \"$(cat $d/serial)\" = {serial} ] && cat $d/size $d/ro && exit; \
         done; sleep 0.05; done 2>/dev/null"
    )
}

fn image(path: &Path, bytes: u64) -> File {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).open(path);
    let file = file.unwrap();
    file.set_len(bytes).unwrap();
    file
}

fn disk(image: impl Into<OwnedFd>, serial: &str, read_only: bool) -> HotDevice {
    HotDevice::Disk(Disk {
        image: image.into(),
        serial: serial.into(),
        read_only,
        scratch: false,
    })
}

#[test]
fn a_running_guest_gets_disks_and_lets_go_of_them() {
    let host = host();
    let root = busybox_root(&host);
    let images = tempfile::tempdir().unwrap();
    on_executor(async {
        let runtime = runtime(&host);
        let config = sandbox("hot", vec![container("c", &root, &["sleep", "1000"])]);
        let sandbox = runtime.run_sandbox(config).await.unwrap();
        let vm = vm(&runtime, &sandbox);

        let path = images.path().join("data");
        let plugged = vm.plug(disk(image(&path, 1 << 20), "data", false)).await;
        assert_eq!(plugged.unwrap().pci_path, "1b.0/00");
        assert_eq!(shell(&sandbox, &seen_disk("data")).await, "2048\n0\n");
        let read_only = disk(File::open(&path).unwrap(), "again", true);
        assert_eq!(vm.plug(read_only).await.unwrap().pci_path, "1b.1/00");
        assert_eq!(shell(&sandbox, &seen_disk("again")).await, "2048\n1\n");

        for serial in ["data", "again"] {
            vm.unplug(serial).await.unwrap();
        }
        let left = "cat /sys/block/vd*/serial 2>/dev/null; echo none";
        assert_eq!(shell(&sandbox, left).await, "none\n");
        sandbox.delete().await.unwrap();
    });
}

#[test]
fn a_running_sandbox_gets_an_image_from_one_process_and_another_takes_it_out() {
    let host = host();
    let root = busybox_root(&host);
    let images = tempfile::tempdir().unwrap();
    on_executor(async {
        let keeper = runtime(&host);
        let config = sandbox("hot", vec![container("c", &root, &["sleep", "1000"])]);
        let sandbox = keeper.run_sandbox(config).await.unwrap();
        let path = images.path().join("data");
        drop(image(&path, 1 << 20));
        let data = DeviceConfig::Block {
            path,
            read_only: false,
        };
        let device = runtime(&host).add_device(sandbox.id(), &data).await;
        let device = device.unwrap();
        assert_eq!(device.pci_path, "1b.0/00");
        assert_eq!(shell(&sandbox, &seen_disk(&device.id)).await, "2048\n0\n");
        let taken = runtime(&host).add_device(sandbox.id(), &data).await;
        let taken = taken.unwrap_err();
        assert!(matches!(taken, Error::Device { .. }), "{taken}");

        let fetched = runtime(&host).fetch_sandbox(sandbox.id()).await.unwrap();
        assert_eq!(fetched.devices().unwrap(), std::slice::from_ref(&device));
        fetched.remove_device(&device.id).await.unwrap();
        let left = "cat /sys/block/vd*/serial 2>/dev/null; echo none";
        assert_eq!(shell(&sandbox, left).await, "none\n");
        let again = sandbox.add_device(&data).await.unwrap();
        assert_eq!(shell(&sandbox, &seen_disk(&again.id)).await, "2048\n0\n");
        sandbox.delete().await.unwrap();
    });
}

#[test]
fn a_running_guest_gets_a_network_device_and_lets_go_of_it() {
    let host = host();
    let root = busybox_root(&host);
    // In the test's own directory, where tests beside this one do not miss it.
    let made = MadeNamespace::plan(host.dir("netns"), "net").unwrap();
    let namespace = made.make().unwrap();
    on_executor(async {
        let runtime = runtime(&host);
        let config = sandbox("hot", vec![container("c", &root, &["sleep", "1000"])]);
        let sandbox = runtime.run_sandbox(config).await.unwrap();
        let vm = vm(&runtime, &sandbox);
        let transport = Transport::new(vm.agent_address().clone(), CALL);
        let limits = CallLimits {
            call: CALL,
            create: CALL,
        };
        let agent = AgentClient::connect(&transport, limits).await.unwrap();

        let tap = Tap::make(&namespace, &"tap0".parse().unwrap(), 1500, 1).unwrap();
        let device = HotDevice::Nic(Nic {
            id: "eth1".into(),
            mac: MAC,
            queues: 1,
            backend: NicBackend::Tap {
                fds: tap.into_queues(),
                vhost_fds: Vec::new(),
            },
        });
        let plugged = vm.plug(device).await.unwrap();
        // The agent waits until the guest has found it.
        let interface = InterfaceConfig {
            pci_path: plugged.pci_path,
            name: "plugged0".into(),
            mac: Some(MAC),
            mtu: None,
            addresses: Vec::new(),
            without_route: Vec::new(),
            no_arp: false,
        };
        agent.update_interface(&interface).await.unwrap();
        let seen = agent.list_interfaces().await.unwrap();
        let seen = seen.iter().find(|interface| interface.mac == Some(MAC));
        assert_eq!(seen.unwrap().name, "plugged0");

        vm.unplug("eth1").await.unwrap();
        let seen = agent.list_interfaces().await.unwrap();
        assert!(!seen.iter().any(|interface| interface.mac == Some(MAC)));
        sandbox.delete().await.unwrap();
    });
    made.delete().unwrap();
}
