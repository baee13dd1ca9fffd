use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use vc_hypervisor::qemu::{QemuConfig, QemuLimits};
use vc_hypervisor::{
    Disk, Error, HotDevice, Hypervisor, Nic, NicBackend, PlugPhase, StopLimits, Vm,
};
use vc_network::{Namespace, Tap};

use crate::machine::{Guest, Host, test};

/// How long a guest that keeps what it has is waited for.
const KEPT_LIMIT: Duration = Duration::from_millis(300);

/// What QEMU has at the moment, by its own account.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// The devices behind root ports: id and bus.
    devices: Vec<String>,
    nodes: Vec<String>,
    back_ends: Vec<String>,
    fd_sets: Vec<String>,
    /// Open descriptors of its process.
    descriptors: usize,
}

impl Seen {
    fn of(host: &Host, vm: &dyn Vm) -> Self {
        let mut qmp = Qmp::connect(host);
        let names = |value: Value, key: &str| -> Vec<String> {
            let mut names: Vec<_> = value
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry[key].to_string())
                .collect();
            names.sort();
            names
        };
        let bridges = qmp.execute("query-pci", json!({}));
        let mut devices = Vec::new();
        for bridge in bridges[0]["devices"].as_array().unwrap() {
            if let Some(behind) = bridge["pci_bridge"]["devices"].as_array() {
                for device in behind {
                    let (id, port) = (&device["qdev_id"], &bridge["qdev_id"]);
                    devices.push(format!("{id} behind {port}"));
                }
            }
        }
        let nodes = qmp.execute("query-named-block-nodes", json!({"flat": true}));
        let back_ends = qmp.execute("qom-list", json!({"path": "/objects"}));
        let fd_sets = qmp.execute("query-fdsets", json!({}));
        // Counted while this client is connected: the one before is gone then for sure.
        let pid = vm.processes()[0].pid();
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        Self {
            devices,
            nodes: names(nodes, "node-name"),
            back_ends: names(back_ends, "name"),
            fd_sets: names(fd_sets, "fdset-id"),
            descriptors: descriptors.count(),
        }
    }
}

/// A plain client of the command socket.
struct Qmp(BufReader<UnixStream>);

impl Qmp {
    fn connect(host: &Host) -> Self {
        let socket = UnixStream::connect(host.directory.path().join("qmp.sock")).unwrap();
        let mut qmp = Self(BufReader::new(socket));
        qmp.0.read_line(&mut String::new()).unwrap();
        qmp.execute("qmp_capabilities", json!({}));
        qmp
    }

    fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let mut value: Value = serde_json::from_str(&line).unwrap();
            if value.get("event").is_none() {
                assert!(value.get("return").is_some(), "{command}: {value}");
                return value["return"].take();
            }
        }
    }
}

fn disk(host: &Host, serial: &str) -> HotDevice {
    HotDevice::Disk(Disk {
        image: host.file(serial, &[0; 1 << 16]).into(),
        serial: serial.into(),
        read_only: false,
        scratch: false,
    })
}

fn nic(id: &str, last: u8, fds: Vec<std::os::fd::OwnedFd>) -> HotDevice {
    HotDevice::Nic(Nic {
        id: id.into(),
        mac: [2, 0, 0, 0, 0, last],
        queues: u16::try_from(fds.len()).unwrap(),
        backend: NicBackend::Tap {
            fds,
            vhost_fds: Vec::new(),
        },
    })
}

/// A namespace with nothing but what the test makes in it. It ends with its descriptor: no mount
/// keeps it that another test could take for its own.
fn own_namespace() -> Namespace {
    let (tell, told) = mpsc::channel();
    let (release, wait) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        tell.send(rustix::thread::gettid()).unwrap();
        // It ends when the namespace is open.
        let _ = wait.recv();
    });
    let tid = told.recv().unwrap();
    let path = format!("/proc/self/task/{tid}/ns/net");
    let namespace = Namespace::open(path).unwrap();
    drop(release);
    thread.join().unwrap();
    namespace
}

fn has_tap(namespace: &Namespace) -> bool {
    let devices = namespace
        .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))
        .unwrap();
    devices.contains("tap0:")
}

pub(crate) fn disk_comes_and_goes() {
    test(async |host| {
        let vm = host.launch_begun(Guest::LetsGo).await.unwrap();
        let before = Seen::of(host, &*vm);
        for serial in ["data", "again"] {
            let plugged = vm.plug(disk(host, serial)).await.unwrap();
            assert_eq!(plugged.pci_path, "1b.0/00");
            let seen = Seen::of(host, &*vm);
            assert_eq!(seen.devices, ["\"hot0\" behind \"port0\""]);
            assert!(seen.nodes.contains(&"\"hot0\"".to_owned()), "{seen:?}");
            vm.unplug(serial).await.unwrap();
            assert_eq!(Seen::of(host, &*vm), before);
        }
        let image = File::open(host.directory.path().join("data")).unwrap();
        let read_only = HotDevice::Disk(Disk {
            image: image.into(),
            serial: "image".into(),
            read_only: true,
            scratch: false,
        });
        vm.plug(read_only).await.unwrap();
        let nodes = Qmp::connect(host).execute("query-named-block-nodes", json!({"flat": true}));
        let nodes = nodes.as_array().unwrap();
        let node = nodes.iter().find(|node| node["node-name"] == "hot0");
        assert_eq!(node.unwrap()["ro"], true);
        vm.stop(StopLimits::AT_ONCE).await.unwrap();
    });
}

pub(crate) fn nic_comes_and_goes() {
    test(async |host| {
        let namespace = own_namespace();
        let vm = host.launch_begun(Guest::LetsGo).await.unwrap();
        let before = Seen::of(host, &*vm);
        for queues in [1, 2] {
            let name = "tap0".parse().unwrap();
            let tap = Tap::make(&namespace, &name, 1500, queues).unwrap();
            let device = nic("eth1", 1, tap.into_queues());
            let plugged = vm.plug(device).await.unwrap();
            assert_eq!(plugged.pci_path, "1b.0/00");
            let seen = Seen::of(host, &*vm);
            assert_eq!(seen.devices, ["\"hot0\" behind \"port0\""]);
            assert!(has_tap(&namespace));
            vm.unplug("eth1").await.unwrap();
            assert_eq!(Seen::of(host, &*vm), before);
            assert!(!has_tap(&namespace), "it ends with its last descriptor");
        }
        vm.stop(StopLimits::AT_ONCE).await.unwrap();
    });
}

pub(crate) fn refused() {
    test(async |host| {
        let vm = host.launch_begun(Guest::LetsGo).await.unwrap();
        let before = Seen::of(host, &*vm);
        // A file is no tap, and QEMU says so when it has it already.
        let no_tap = nic("eth1", 1, vec![host.file("no-tap", b"").into()]);
        let error = vm.plug(no_tap).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Refused {
                    command: "netdev_add",
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(Seen::of(host, &*vm), before);

        // A port that was taken without the host's account.
        let mut qmp = Qmp::connect(host);
        let rng = json!({"driver": "virtio-rng-pci", "id": "stranger", "bus": "port0"});
        qmp.execute("device_add", rng);
        drop(qmp);
        let before = Seen::of(host, &*vm);
        let error = vm.plug(disk(host, "data")).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Refused {
                    command: "device_add",
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(Seen::of(host, &*vm), before);
        assert!(vm.plugged().is_empty());
        vm.stop(StopLimits::AT_ONCE).await.unwrap();
    });
}

pub(crate) fn all_ports_taken() {
    test(async |host| {
        let vm = host.launch_begun(Guest::LetsGo).await.unwrap();
        for port in 0..4 {
            let plugged = vm.plug(disk(host, &format!("data{port}"))).await.unwrap();
            assert_eq!(plugged.pci_path, format!("1b.{port}/00"));
        }
        let before = Seen::of(host, &*vm);
        assert_eq!(before.devices.len(), 4);
        let error = vm.plug(disk(host, "more")).await.unwrap_err();
        assert!(
            matches!(error, Error::NoFreePort { ports: 4, .. }),
            "{error}"
        );
        assert_eq!(Seen::of(host, &*vm), before);
        vm.unplug("data2").await.unwrap();
        let plugged = vm.plug(disk(host, "more")).await.unwrap();
        assert_eq!(plugged.pci_path, "1b.2/00");
        // The serial number of a disk from the start.
        let error = vm.plug(disk(host, "disk")).await.unwrap_err();
        assert!(matches!(error, Error::DeviceKnown { .. }), "{error}");
        vm.stop(StopLimits::AT_ONCE).await.unwrap();
    });
}

pub(crate) fn kept_by_the_guest() {
    test(async |host| {
        let config = QemuConfig {
            limits: QemuLimits {
                unplug: KEPT_LIMIT,
                ..QemuLimits::default()
            },
            ..QemuConfig::default()
        };
        let driver = host.driver_with(config);
        let vm = driver.launch(host.spec(Guest::Idle)).await.unwrap();
        host.begun().await;
        let before = Seen::of(host, &*vm);
        vm.plug(disk(host, "data")).await.unwrap();
        for _ in 0..2 {
            let error = vm.unplug("data").await.unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::GuestKeeps {
                        limit: KEPT_LIMIT,
                        ..
                    }
                ),
                "{error}"
            );
            assert_eq!(vm.plugged()[0].phase, PlugPhase::Leaving);
        }

        let text = serde_json::to_string(&vm.state()).unwrap();
        let other = driver
            .attach(&serde_json::from_str(&text).unwrap())
            .await
            .unwrap();
        assert_eq!(other.plugged(), vm.plugged());
        let plugged = other.plug(disk(host, "more")).await.unwrap();
        assert_eq!(plugged.pci_path, "1b.1/00", "the first port is not free");
        let seen = Seen::of(host, &*vm);
        assert_eq!(seen.devices.len(), 2);
        assert_eq!(seen.nodes.len(), before.nodes.len() + 2);
        vm.stop(StopLimits::AT_ONCE).await.unwrap();
    });
}

/// Whoever plugged it in was killed: the device is there, and the account says that it comes.
pub(crate) fn interrupted() {
    test(async |host| {
        let vm = host.launch_begun(Guest::LetsGo).await.unwrap();
        let before = Seen::of(host, &*vm);
        vm.reserve(&disk(host, "data")).unwrap();
        let stored = vm.state();
        assert_eq!(Seen::of(host, &*vm), before, "nothing has changed");
        vm.plug(disk(host, "data")).await.unwrap();

        let other = host.driver().attach(&stored).await.unwrap();
        assert_eq!(other.plugged()[0].phase, PlugPhase::Coming);
        other.unplug("data").await.unwrap();
        assert_eq!(Seen::of(host, &*vm), before);
        // Where nothing of it came to be, too.
        other.reserve(&disk(host, "data")).unwrap();
        other.unplug("data").await.unwrap();
        assert_eq!(Seen::of(host, &*vm), before);
        assert!(other.plugged().is_empty());
        vm.stop(StopLimits::AT_ONCE).await.unwrap();
    });
}
