//! The shim as versions of containerd call it that are not at hand, and what no client of the real one
//! can ask.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use containerd_shim_protos::TaskClient;
use containerd_shim_protos::api::{
    ConnectRequest, CreateTaskRequest, DeleteRequest, KillRequest, ShutdownRequest, StartRequest,
    StateRequest, WaitRequest,
};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::{self, Client, Code, context};
use serde_json::{Value, json};
use test_vm::Host;

use super::image;

const NAMESPACE: &str = "direct";
pub(super) const ID: &str = "c1";
const SECONDS: i64 = 1_000_000_000;

/// A bundle whose shim is called by the test.
pub(super) struct Direct {
    pub(super) host: Host,
    pub(super) bundle: PathBuf,
    /// A variable of the shim's.
    env: Option<(&'static str, &'static str)>,
}

impl Direct {
    pub(super) fn new(change: impl FnOnce(&mut Value)) -> Self {
        let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-virtc-v2"));
        let host = Host::new(shim.with_file_name("virtc").to_str().unwrap());
        image::archive(&host.dir("image"));
        let bundle = host.dir("bundle");
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": ["/bin/sleep", "1000"],
                "cwd": "/",
                "env": ["PATH=/bin"],
                "user": {"uid": 0, "gid": 0},
            },
            "root": {"path": host.dir("image").join("root")},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "cgroupsPath": host.cgroup(ID),
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}],
            },
        });
        change(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        Self {
            host,
            bundle,
            env: None,
        }
    }

    /// Calls an action with what containerd sends by stdin, and gives what it answers.
    pub(super) fn call(&self, action: &str, version_max: Option<&str>, input: &[u8]) -> Vec<u8> {
        let output = self.output(action, version_max, input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        output.stdout
    }

    fn output(&self, action: &str, version_max: Option<&str>, input: &[u8]) -> Output {
        let address = self.bundle.join("containerd.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_containerd-shim-virtc-v2"));
        command
            .args([
                "-namespace",
                NAMESPACE,
                "-id",
                ID,
                "-publish-binary",
                "/bin/true",
            ])
            .args(["-address", address.to_str().unwrap(), action])
            .current_dir(&self.bundle)
            .env("VIRTC_RUNTIME_ROOT", self.host.root())
            .env("VIRTC_RUNTIME_FAILURES", self.host.failures())
            .env_remove("MAX_SHIM_VERSION")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .envs(self.env);
        if let Some(max) = version_max {
            command.env("MAX_SHIM_VERSION", max);
        }
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    pub(super) fn create(&self) -> CreateTaskRequest {
        CreateTaskRequest {
            id: ID.to_owned(),
            bundle: self.bundle.display().to_string(),
            ..CreateTaskRequest::default()
        }
    }
}

pub(super) fn client(address: &str) -> TaskClient {
    TaskClient::new(Client::connect(address).unwrap())
}

pub(super) fn limit(seconds: i64) -> context::Context {
    context::with_timeout(seconds * SECONDS)
}

fn code(error: ttrpc::Error) -> Code {
    match error {
        ttrpc::Error::RpcStatus(status) => status.code.enum_value_or_default(),
        other => panic!("{other}"),
    }
}

pub(super) fn kill() -> KillRequest {
    KillRequest {
        id: ID.to_owned(),
        signal: 9,
        ..KillRequest::default()
    }
}

pub(super) fn wait() -> WaitRequest {
    WaitRequest {
        id: ID.to_owned(),
        ..WaitRequest::default()
    }
}

pub(super) fn delete() -> DeleteRequest {
    DeleteRequest {
        id: ID.to_owned(),
        ..DeleteRequest::default()
    }
}

pub(super) fn shut_down(client: &TaskClient) {
    let request = ShutdownRequest {
        id: ID.to_owned(),
        ..ShutdownRequest::default()
    };
    // It may be gone before its answer is read.
    let _ = client.shutdown(limit(10), &request);
}

#[test]
fn containerd_2_3_sends_a_message_and_uses_the_service_of_version_3() {
    let direct = Direct::new(|_| {});
    let params = BootstrapParams {
        instance_id: ID.to_owned(),
        namespace: NAMESPACE.to_owned(),
        ..BootstrapParams::default()
    };
    let answer = direct.call("start", Some("2"), &params.write_to_bytes().unwrap());
    let answer = BootstrapResult::parse_from_bytes(&answer).unwrap();
    assert_eq!((answer.version, answer.protocol.as_str()), (3, "ttrpc"));
    let client = client(&answer.address);
    client.create(limit(60), &direct.create()).unwrap();
    // One that waits learns of the end.
    let waiting = client.clone();
    let waiter = std::thread::spawn(move || waiting.wait(limit(60), &wait()).unwrap().exit_status);
    let request = StartRequest {
        id: ID.to_owned(),
        ..StartRequest::default()
    };
    client.start(limit(10), &request).unwrap();
    client.kill(limit(10), &kill()).unwrap();
    assert_eq!(waiter.join().unwrap(), 137);
    assert_eq!(
        code(client.kill(limit(10), &kill()).unwrap_err()),
        Code::NOT_FOUND
    );
    assert_eq!(
        client.delete(limit(10), &delete()).unwrap().exit_status,
        137
    );
    shut_down(&client);
}

#[test]
fn a_task_that_was_never_started_is_killed_and_its_end_is_told() {
    let direct = Direct::new(|_| {});
    let address = String::from_utf8(direct.call("start", None, b"")).unwrap();
    let client = client(&address);
    client.create(limit(60), &direct.create()).unwrap();
    client.kill(limit(10), &kill()).unwrap();
    assert_eq!(client.wait(limit(10), &wait()).unwrap().exit_status, 137);
    assert_eq!(
        client.delete(limit(10), &delete()).unwrap().exit_status,
        137
    );
    shut_down(&client);
}

#[test]
fn a_shim_whose_task_was_never_made_is_found_and_ends_by_delete() {
    let direct = Direct::new(|_| {});
    let address = String::from_utf8(direct.call("start", None, b"")).unwrap();
    let request = ConnectRequest {
        id: ID.to_owned(),
        ..ConnectRequest::default()
    };
    let found = client(&address).connect(limit(10), &request).unwrap();
    assert!(found.shim_pid > 0 && found.task_pid == 0);
    direct.call("delete", None, b"");
    assert!(!Path::new(address.strip_prefix("unix://").unwrap()).exists());
    // The name is free.
    let again = String::from_utf8(direct.call("start", None, b"")).unwrap();
    assert_eq!(again, address);
    shut_down(&client(&again));
}

#[test]
fn settings_that_are_wrong_are_said_where_a_task_is_started() {
    let mut direct = Direct::new(|_| {});
    direct.env = Some(("VIRTC_VM_MEMORY", "lots"));
    let output = direct.output("start", None, b"");
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("VIRTC_VM_MEMORY"), "{said}");
}

#[test]
fn a_creation_that_hangs_is_seen_and_given_up() {
    let direct = Direct::new(|config| {
        let script = format!(
            "touch {}.hangs; exec sleep 1000",
            config["root"]["path"].as_str().unwrap()
        );
        let hang = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        config["hooks"] = json!({"createRuntime": [hang]});
    });
    let answer = direct.call("start", Some("2"), b"");
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["version"], 2);
    let client = client(answer["address"].as_str().unwrap());
    let (creating, request) = (client.clone(), direct.create());
    let creation = std::thread::spawn(move || creating.create(limit(60), &request).unwrap_err());
    let state = StateRequest {
        id: ID.to_owned(),
        ..StateRequest::default()
    };
    let asked = std::time::Instant::now();
    let hangs = direct.host.dir("image").join("root.hangs");
    while !hangs.exists() {
        assert!(
            asked.elapsed().as_secs() < 20,
            "the creation does not come to its hook"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    client.state(limit(2), &state).unwrap();
    let refused = client.create(limit(2), &direct.create()).unwrap_err();
    assert_eq!(code(refused), Code::ALREADY_EXISTS);
    client.kill(limit(2), &kill()).unwrap();
    creation.join().unwrap();
    assert_eq!(
        code(client.state(limit(2), &state).unwrap_err()),
        Code::NOT_FOUND
    );
    shut_down(&client);
}

#[test]
fn what_a_client_has_no_time_for_is_undone() {
    let direct = Direct::new(|_| {});
    let address = String::from_utf8(direct.call("start", None, b"")).unwrap();
    let client = client(&address);
    // No machine comes up in that.
    let late = client.create(context::with_timeout(SECONDS / 3), &direct.create());
    assert!(late.is_err());
    let request = StateRequest {
        id: ID.to_owned(),
        ..StateRequest::default()
    };
    let asked = std::time::Instant::now();
    while client.state(limit(2), &request).is_ok() {
        assert!(asked.elapsed().as_secs() < 20, "the creation goes on");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    shut_down(&client);
    // What is said to be left is nothing.
    direct.call("delete", None, b"");
}
