//! A scripted QEMU behind a real socket: what it is sent, and with how many descriptors.

use std::collections::HashMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::sync::Mutex;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::qemu::{QemuLimits, QemuState};
use crate::{Disk, HotPlugRecord, Nic, mock};

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}"#;

/// What the peer answers to a command that the test names; everything else is done.
type Answers = HashMap<&'static str, Vec<&'static str>>;

const ABSENT: &str = r#""error": {"class": "DeviceNotFound", "desc": "not there"}"#;
const REFUSED: &str = r#""error": {"class": "GenericError", "desc": "not today"}"#;
const SILENT: &str = "";
const NODES: &str = r#""return": []"#;

const HOT0: &str = r#""return": [{"node-name": "hot0", "ro": false, "drv": "file", "encrypted": false, "detect_zeroes": "off", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0, "image": {"filename": "x", "format": "file", "virtual-size": 0}, "cache": {"writeback": true, "direct": false, "no-flush": false}, "write_threshold": 0, "backing_file_depth": 0, "file": "x"}]"#;

struct Peer {
    _directory: tempfile::TempDir,
    running: Arc<Running>,
    answers: Arc<Mutex<Answers>>,
    sent: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    fn with(answers: &[(&'static str, &[&'static str])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("qmp.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&sent);
        let answers: Answers = answers
            .iter()
            .map(|(command, answers)| (*command, answers.to_vec()))
            .collect();
        let answers = Arc::new(Mutex::new(answers));
        let script = Arc::clone(&answers);
        tokio::spawn(async move {
            // One client at a time, as QEMU has it.
            while let Ok((stream, _)) = listener.accept().await {
                let _ = serve(stream, &script, &log).await;
            }
        });
        let mut spec = mock::spec("web1").unwrap();
        spec.root_ports = 2;
        let state = QemuState {
            process: vc_types::ProcessIdentity::current().unwrap(),
            commands_socket: socket,
            agent: spec.vsock.agent_address(),
            accelerator: spec.accelerator,
            hot_plug: HotPlugRecord::of(&spec),
        };
        let limits = QemuLimits {
            command: Duration::from_millis(500),
            unplug: Duration::from_millis(100),
            ..QemuLimits::default()
        };
        Self {
            _directory: directory,
            running: Running::new(state, limits),
            answers,
            sent,
        }
    }

    async fn plug(&self, device: HotDevice) -> Result<Plugged> {
        Arc::clone(&self.running).plug(device).await
    }

    async fn unplug(&self, id: &str) -> Result<()> {
        Arc::clone(&self.running).unplug(id).await
    }

    /// What was sent since the last look.
    fn sent(&self) -> String {
        std::mem::take(&mut *self.sent.lock().unwrap()).join("\n")
    }

    fn phases(&self) -> Vec<PlugPhase> {
        let plugged = self.running.hot_plug().plugged();
        plugged.iter().map(|device| device.phase).collect()
    }
}

async fn serve(
    mut stream: UnixStream,
    answers: &Mutex<Answers>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    stream.write_all(format!("{GREETING}\n").as_bytes()).await?;
    log.lock().unwrap().push("-- connected".into());
    let mut read = Vec::new();
    let mut descriptors = 0;
    loop {
        let Some(at) = read.iter().position(|byte| *byte == b'\n') else {
            let receive = || receive(&stream, &mut read);
            match stream.async_io(Interest::READABLE, receive).await? {
                None => return Ok(()),
                Some(count) => descriptors += count,
            }
            continue;
        };
        let line: Vec<u8> = read.drain(..=at).collect();
        let value: serde_json::Value = serde_json::from_slice(&line)?;
        let command = value["execute"].as_str().unwrap();
        if command != "qmp_capabilities" {
            let with = match std::mem::take(&mut descriptors) {
                0 => String::new(),
                count => format!(" + {count} descriptor"),
            };
            let arguments = &value["arguments"];
            let text = format!("{command} {arguments}{with}");
            log.lock().unwrap().push(text);
        }
        let scripted = {
            let mut answers = answers.lock().unwrap();
            let list = answers.get_mut(command).filter(|list| !list.is_empty());
            list.map(|list| list.remove(0))
        };
        let answer = match scripted {
            Some(answer) => answer,
            None if command == "add-fd" => r#""return": {"fdset-id": 1000, "fd": 30}"#,
            None => r#""return": {}"#,
        };
        let id = &value["id"];
        let event = match (command, answer) {
            ("device_del", r#""return": {}"#) => format!(
                "{{\"event\": \"DEVICE_DELETED\", \"data\": {{\"device\": {}, \"path\": \"/\"}}}}\n",
                value["arguments"]["id"]
            ),
            _ => String::new(),
        };
        if answer != SILENT {
            // An end that comes before the answer counts too.
            let text = format!("{event}{{{answer}, \"id\": {id}}}\n");
            stream.write_all(text.as_bytes()).await?;
        }
    }
}

/// Reads what is there, and counts the descriptors that came with it.
fn receive(stream: &UnixStream, read: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        flags,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    read.extend_from_slice(&bytes[..received.bytes]);
    let descriptors = control.drain().map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.count(),
        _ => 0,
    });
    Ok(Some(descriptors.sum()))
}

fn disk(serial: &str, read_only: bool) -> HotDevice {
    let image = tempfile::NamedTempFile::new().unwrap();
    let image = std::fs::File::options()
        .read(true)
        .write(!read_only)
        .open(image.path())
        .unwrap();
    HotDevice::Disk(Disk {
        image: image.into(),
        serial: serial.into(),
        read_only,
        scratch: false,
    })
}

fn nic(id: &str, queues: u16, vhost: u16) -> HotDevice {
    let open = |count| (0..count).map(|_| mock::null().unwrap()).collect();
    HotDevice::Nic(Nic {
        id: id.into(),
        mac: [2, 0, 0, 0, 0, 7],
        queues,
        backend: NicBackend::Tap {
            fds: open(queues),
            vhost_fds: open(vhost),
        },
    })
}

#[tokio::test]
async fn a_disk_comes_and_goes() {
    let peer = Peer::with(&[]);
    let plugged = peer.plug(disk("data", true)).await.unwrap();
    assert_eq!(plugged.pci_path, "1b.0/00");
    assert_eq!(plugged.phase, PlugPhase::Present);
    let writable = peer.plug(disk("more", false)).await.unwrap();
    assert_eq!(writable.pci_path, "1b.1/00");
    peer.unplug("data").await.unwrap();
    insta::assert_snapshot!(peer.sent());
    assert!(matches!(
        peer.unplug("data").await,
        Err(Error::NoDevice { .. })
    ));
    assert_eq!(peer.phases(), [PlugPhase::Present]);
}

#[tokio::test]
async fn a_network_device_comes_and_goes() {
    let peer = Peer::with(&[]);
    peer.plug(nic("eth1", 2, 2)).await.unwrap();
    peer.unplug("eth1").await.unwrap();
    peer.plug(nic("eth2", 1, 1)).await.unwrap();
    peer.unplug("eth2").await.unwrap();
    assert!(peer.phases().is_empty());
    insta::assert_snapshot!(peer.sent());
}

#[tokio::test]
async fn each_step_that_fails_is_undone() {
    for command in ["getfd", "netdev_add", "device_add"] {
        // What was not added is not there.
        let peer = Peer::with(&[(command, &[REFUSED]), ("device_del", &[ABSENT])]);
        let error = peer.plug(nic("eth1", 1, 0)).await.unwrap_err();
        assert!(error.to_string().contains("not today"), "{error}");
        assert!(peer.phases().is_empty(), "{command}");
        let sent = peer.sent();
        let undone = sent.rsplit("-- connected").next().unwrap();
        assert_eq!(
            undone.trim(),
            "device_del {\"id\":\"hot0\"}\nnetdev_del {\"id\":\"hot0\"}\n\
             closefd {\"fdname\":\"hot0-0\"}"
        );
    }
    for command in ["add-fd", "blockdev-add", "device_add"] {
        let peer = Peer::with(&[
            (command, &[REFUSED]),
            ("device_del", &[ABSENT]),
            ("blockdev-del", &[REFUSED]),
            ("query-named-block-nodes", &[NODES]),
            ("remove-fd", &[REFUSED]),
        ]);
        let error = peer.plug(disk("data", false)).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert!(peer.phases().is_empty(), "{command}");
        assert!(peer.sent().ends_with("remove-fd {\"fdset-id\":1000}"));
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_undone_over_a_new_connection() {
    let peer = Peer::with(&[("device_add", &[SILENT])]);
    let error = peer.plug(disk("data", false)).await.unwrap_err();
    assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
    assert!(peer.phases().is_empty());
    let sent = peer.sent();
    assert_eq!(sent.matches("-- connected").count(), 2, "{sent}");
    assert!(sent.contains("device_del"), "it may be there: {sent}");
}

#[tokio::test]
async fn a_device_that_stays_is_known_as_leaving_and_keeps_its_port() {
    let still = r#""return": {} "#;
    let peer = Peer::with(&[("device_del", &[still, REFUSED])]);
    peer.plug(disk("data", false)).await.unwrap();
    for _ in 0..2 {
        let error = peer.unplug("data").await.unwrap_err();
        assert!(matches!(error, Error::GuestKeeps { .. }), "{error}");
        assert_eq!(peer.phases(), [PlugPhase::Leaving]);
    }
    let next = peer.plug(disk("more", false)).await.unwrap();
    assert_eq!(next.pci_path, "1b.1/00");
    peer.sent();
    let full = peer.plug(nic("eth1", 1, 0)).await.unwrap_err();
    assert!(matches!(full, Error::NoFreePort { ports: 2, .. }));
    assert_eq!(peer.sent(), "", "nothing was asked of QEMU");
    peer.unplug("data").await.unwrap();
    assert_eq!(
        peer.plug(nic("eth1", 1, 0)).await.unwrap().pci_path,
        "1b.0/00"
    );
}

#[tokio::test]
async fn a_network_device_that_stays_has_no_cable_any_more() {
    let still = r#""return": {} "#;
    let peer = Peer::with(&[("device_del", &[still])]);
    peer.plug(nic("eth1", 1, 0)).await.unwrap();
    peer.sent();
    let error = peer.unplug("eth1").await.unwrap_err();
    assert!(matches!(error, Error::GuestKeeps { .. }), "{error}");
    assert_eq!(peer.phases(), [PlugPhase::Leaving]);
    let sent = peer.sent();
    assert!(sent.contains("netdev_del {\"id\":\"hot0\"}"), "{sent}");
}

#[tokio::test]
async fn a_node_that_cannot_be_removed_is_an_error() {
    let peer = Peer::with(&[
        ("blockdev-del", &[REFUSED; 1_000]),
        ("query-named-block-nodes", &[HOT0; 1_000]),
    ]);
    peer.plug(disk("data", false)).await.unwrap();
    let error = peer.unplug("data").await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused {
                command: "blockdev-del",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(peer.phases(), [PlugPhase::Leaving]);
    peer.answers.lock().unwrap().clear();
    peer.unplug("data").await.unwrap();
}

/// As QEMU does for a moment after a device is gone.
#[tokio::test]
async fn a_node_that_is_still_held_is_removed_a_moment_later() {
    let peer = Peer::with(&[
        ("blockdev-del", &[REFUSED; 3]),
        ("query-named-block-nodes", &[HOT0; 3]),
    ]);
    peer.plug(disk("data", false)).await.unwrap();
    peer.unplug("data").await.unwrap();
    assert_eq!(peer.sent().matches("blockdev-del").count(), 4);
}

#[tokio::test]
async fn a_plug_that_is_given_up_leaves_nothing() {
    let peer = Peer::with(&[]);
    tokio::select! {
        biased;
        _ = peer.plug(disk("data", false)) => unreachable!("QEMU has not answered yet"),
        () = std::future::ready(()) => {}
    }
    // The next one has its turn when the first is taken out.
    peer.plug(disk("more", false)).await.unwrap();
    assert_eq!(peer.phases(), [PlugPhase::Present]);
    let sent = peer.sent();
    assert!(
        sent.contains("blockdev-del {\"node-name\":\"hot0\"}"),
        "{sent}"
    );
}

#[tokio::test]
async fn a_state_of_before_there_was_hot_plug_has_no_free_port() {
    let peer = Peer::with(&[]);
    let mut state = serde_json::to_value(peer.running.state()).unwrap();
    let ports = state.as_object_mut().unwrap().remove("hot_plug").unwrap();
    assert_eq!(ports["ports"], 2);
    let state = serde_json::from_value(state).unwrap();
    let vm = crate::qemu::attach(&state, QemuLimits::default()).unwrap();
    let error = vm.reserve(&disk("data", false)).unwrap_err();
    assert!(matches!(error, Error::NoFreePort { ports: 0, .. }));
}

#[tokio::test]
async fn a_reservation_is_found_and_taken_out_by_another_process() {
    let peer = Peer::with(&[("device_del", &[ABSENT])]);
    let reserved = peer.running.reserve(&disk("data", false)).unwrap();
    assert_eq!(reserved.phase, PlugPhase::Coming);
    assert_eq!(peer.sent(), "", "nothing of the VM has changed");
    peer.unplug("data").await.unwrap();
    assert!(peer.phases().is_empty());
}

const NO_MEMORY: &str = r#""return": []"#;
const MEMORY: &str = r#""return": [{"type": "virtio-mem", "data": {"memdev": "/objects/hot0", "memaddr": 4294967296, "block-size": 2097152, "size": 0, "node": 0, "max-size": 1073741824, "requested-size": 0, "id": "hot0"}}]"#;

fn memory() -> HotDevice {
    HotDevice::Memory(ByteSize::from_mib(1024))
}

#[tokio::test]
async fn memory_comes_once_and_stays() {
    let asked = ("query-memory-devices", &[NO_MEMORY, MEMORY, MEMORY][..]);
    let peer = Peer::with(&[asked]);
    let plugged = peer.plug(memory()).await.unwrap();
    assert_eq!(plugged.phase, PlugPhase::Present);
    insta::assert_snapshot!(peer.sent());
    assert!(matches!(
        peer.plug(memory()).await,
        Err(Error::DeviceKnown { .. })
    ));
    let error = peer.unplug("memory").await.unwrap_err();
    assert!(matches!(error, Error::Stays { .. }), "{error}");
    assert_eq!(peer.phases(), [PlugPhase::Present]);
}

#[tokio::test]
async fn memory_that_an_interrupted_process_has_plugged_in_is_gone_on_from() {
    let peer = Peer::with(&[("query-memory-devices", &[MEMORY])]);
    peer.running.reserve(&memory()).unwrap();
    assert_eq!(peer.phases(), [PlugPhase::Coming]);
    peer.plug(memory()).await.unwrap();
    assert_eq!(peer.phases(), [PlugPhase::Present]);
    assert!(!peer.sent().contains("device_add"));
}

#[tokio::test]
async fn memory_that_is_refused_leaves_nothing() {
    let peer = Peer::with(&[
        ("query-memory-devices", &[NO_MEMORY, NO_MEMORY]),
        ("device_add", &[REFUSED]),
        ("device_del", &[ABSENT]),
    ]);
    let error = peer.plug(memory()).await.unwrap_err();
    assert!(error.to_string().contains("not today"), "{error}");
    assert!(peer.phases().is_empty());
    assert!(peer.sent().ends_with("object-del {\"id\":\"hot0\"}"));
}
