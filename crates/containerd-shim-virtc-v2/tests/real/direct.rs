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
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, PingRequest, SandboxStatusRequest, ShutdownSandboxRequest,
    StartSandboxRequest, StopSandboxRequest, WaitSandboxRequest,
};
use containerd_shim_protos::sandbox_sync::SandboxClient;
use containerd_shim_protos::ttrpc::{self, Client, Code, context};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use test_vm::Host;

use super::image;

pub(super) const NAMESPACE: &str = "direct";
pub(super) const ID: &str = "c1";
const SECONDS: i64 = 1_000_000_000;

/// A bundle whose shim is called by the test.
pub(super) struct Direct {
    pub(super) host: Host,
    pub(super) bundle: PathBuf,
    /// Variables of the shim's.
    pub(super) env: Vec<(&'static str, String)>,
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
            env: Vec::new(),
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
            .envs(self.env.clone());
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

fn start() -> StartRequest {
    StartRequest {
        id: ID.to_owned(),
        ..StartRequest::default()
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
    client.start(limit(10), &start()).unwrap();
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
fn a_reader_that_comes_after_the_process_has_ended_gets_its_output() {
    let direct = Direct::new(|config| config["process"]["args"] = json!(["/bin/echo", "hello"]));
    let address = String::from_utf8(direct.call("start", None, b"")).unwrap();
    let client = client(&address);
    let stdout = direct.bundle.join("stdout");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &stdout, mode).unwrap();
    let request = CreateTaskRequest {
        stdout: stdout.display().to_string(),
        ..direct.create()
    };
    client.create(limit(60), &request).unwrap();
    client.start(limit(10), &start()).unwrap();
    // The end is told before the output is where it belongs.
    assert_eq!(client.wait(limit(10), &wait()).unwrap().exit_status, 0);
    // Where nothing is to come, it waits for ever.
    let (read, output) = std::sync::mpsc::channel();
    std::thread::spawn(move || read.send(fs::read_to_string(stdout)));
    let output = output.recv_timeout(std::time::Duration::from_secs(10));
    assert_eq!(output.expect("a reader has an end").unwrap(), "hello\n");
    client.delete(limit(10), &delete()).unwrap();
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
    direct.env = vec![("VIRTC_VM_MEMORY", "lots".into())];
    let output = direct.output("start", None, b"");
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("VIRTC_VM_MEMORY"), "{said}");
}

#[test]
fn what_a_killed_shim_has_left_is_removed_though_the_settings_are_wrong() {
    let mut direct = Direct::new(|_| {});
    let address = String::from_utf8(direct.call("start", None, b"")).unwrap();
    let client = client(&address);
    client.create(limit(60), &direct.create()).unwrap();
    let request = ConnectRequest {
        id: ID.to_owned(),
        ..ConnectRequest::default()
    };
    let shim = client.connect(limit(10), &request).unwrap().shim_pid;
    let shim = Pid::from_raw(i32::try_from(shim).unwrap()).unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    direct.env = vec![("VIRTC_VM_MEMORY", "lots".into())];
    let output = direct.output("delete", None, b"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("VIRTC_VM_MEMORY"), "{said}");
    let mut state = direct.host.root().into_os_string();
    state.push("-containerd");
    let state = PathBuf::from(state).join(NAMESPACE);
    assert_eq!(fs::read_dir(state).unwrap().count(), 0);
}

/// Options as containerd sends them, whose path is the second field and whose body is the third.
fn options(type_url: &str, field: u8, text: &str) -> Any {
    let length = u8::try_from(text.len()).unwrap();
    Any {
        type_url: type_url.to_owned(),
        value: [&[field << 3 | 2, length], text.as_bytes()].concat(),
        ..Any::default()
    }
}

#[test]
fn options_that_cannot_be_are_refused_by_name() {
    const GENERIC: &str = "runtimeoptions.v1.Options";
    let mut direct = Direct::new(|_| {});
    let allowed = direct.host.dir("allowed");
    let broken = allowed.join("broken.toml");
    fs::write(&broken, "[vm]\nmemory = \"lots\"\n").unwrap();
    let broken = broken.to_str().unwrap();
    direct.env = vec![(
        "VIRTC_RUNTIME_OPTION_PATHS",
        allowed.to_str().unwrap().to_owned(),
    )];
    let runc = "containerd.runc.v1.Options";
    let all = [
        (options("windows.Options", 2, "/x"), "windows.Options"),
        (options(GENERIC, 2, "/etc/passwd"), "ConfigPath /etc/passwd"),
        // It was read: its line is named.
        (options(GENERIC, 2, broken), "broken.toml line 2"),
        (
            options(GENERIC, 3, "[vm]\nvcpus = 1\n"),
            "runtime.annotations",
        ),
        (
            options(runc, 6, "/usr/sbin/runc"),
            "BinaryName /usr/sbin/runc",
        ),
    ];
    for (any, named) in &all {
        let output = direct.output("start", None, &any.write_to_bytes().unwrap());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{named}");
        assert!(said.contains(named), "{said}");
    }
    // The same with the request that makes the task; the name is free after each.
    let address = String::from_utf8(direct.call("start", None, b"")).unwrap();
    let client = client(&address);
    for (any, named) in all {
        let request = CreateTaskRequest {
            options: MessageField::some(any),
            ..direct.create()
        };
        match client.create(limit(60), &request).unwrap_err() {
            ttrpc::Error::RpcStatus(status) => {
                let code = status.code.enum_value_or_default();
                assert_eq!(code, Code::INVALID_ARGUMENT, "{}", status.message);
                assert!(status.message.contains(named), "{}", status.message);
            }
            other => panic!("{other}"),
        }
    }
    shut_down(&client);
}

#[test]
fn a_creation_that_hangs_is_seen_and_given_up() {
    let direct = Direct::new(|config| {
        let script = format!(
            "touch {}.hangs; exec sleep 1000",
            config["root"]["path"].as_str().unwrap()
        );
        let hang = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        let ended = format!(
            "echo ended >> {}.ended",
            config["root"]["path"].as_str().unwrap()
        );
        let ended = json!({"path": "/bin/sh", "args": ["sh", "-c", ended]});
        config["hooks"] = json!({"createRuntime": [hang], "poststop": [ended]});
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
    // The hooks of its end have run, and run once.
    let ended = || fs::read_to_string(direct.host.dir("image").join("root.ended"));
    assert_eq!(ended().unwrap(), "ended\n");
    shut_down(&client);
    direct.call("delete", None, b"");
    assert_eq!(ended().unwrap(), "ended\n");
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

#[test]
fn a_sandbox_is_made_before_its_tasks_and_outlives_them() {
    let direct = Direct::new(|_| {});
    // As containerd has it: a directory without a specification.
    let sandbox = direct.host.dir("sandbox");
    let mut first = Direct {
        bundle: sandbox.clone(),
        ..direct
    };
    let bundle = first.host.dir("bundle");
    let address = String::from_utf8(first.call("start", None, b"")).unwrap();
    let connection = Client::connect(&address).unwrap();
    let sandboxes = SandboxClient::new(connection.clone());
    let tasks = TaskClient::new(connection);
    let asked = CreateSandboxRequest {
        sandbox_id: ID.to_owned(),
        bundle_path: sandbox.display().to_string(),
        ..CreateSandboxRequest::default()
    };
    let start = StartSandboxRequest {
        sandbox_id: ID.to_owned(),
        ..StartSandboxRequest::default()
    };
    let unknown = sandboxes.start_sandbox(limit(60), &start).unwrap_err();
    assert_eq!(code(unknown), Code::NOT_FOUND);
    sandboxes.create_sandbox(limit(10), &asked).unwrap();
    let again = sandboxes.create_sandbox(limit(10), &asked).unwrap_err();
    assert_eq!(code(again), Code::ALREADY_EXISTS);
    let status = || {
        let request = SandboxStatusRequest {
            sandbox_id: ID.to_owned(),
            ..SandboxStatusRequest::default()
        };
        sandboxes.sandbox_status(limit(10), &request).unwrap().state
    };
    assert_eq!(status(), "SANDBOX_NOTREADY");
    assert!(sandboxes.start_sandbox(limit(60), &start).unwrap().pid > 0);
    assert_eq!(status(), "SANDBOX_READY");
    let ping = PingRequest {
        sandbox_id: ID.to_owned(),
        ..PingRequest::default()
    };
    sandboxes.ping_sandbox(limit(10), &ping).unwrap();
    // One that is never started goes, and leaves its name.
    first.bundle = bundle;
    let request = CreateTaskRequest {
        id: "a".to_owned(),
        ..first.create()
    };
    tasks.create(limit(60), &request).unwrap();
    let request = DeleteRequest {
        id: "a".to_owned(),
        ..delete()
    };
    tasks.delete(limit(10), &request).unwrap();
    // A task in it, twice; its end is not the sandbox's.
    for id in ["a", "b"] {
        let request = CreateTaskRequest {
            id: id.to_owned(),
            ..first.create()
        };
        tasks.create(limit(60), &request).unwrap();
        let request = StartRequest {
            id: id.to_owned(),
            ..StartRequest::default()
        };
        tasks.start(limit(10), &request).unwrap();
        let request = KillRequest {
            id: id.to_owned(),
            ..kill()
        };
        tasks.kill(limit(10), &request).unwrap();
        let request = WaitRequest {
            id: id.to_owned(),
            ..wait()
        };
        assert_eq!(tasks.wait(limit(10), &request).unwrap().exit_status, 137);
        let request = DeleteRequest {
            id: id.to_owned(),
            ..delete()
        };
        tasks.delete(limit(10), &request).unwrap();
        shut_down(&tasks);
        assert_eq!(status(), "SANDBOX_READY");
    }
    let request = StopSandboxRequest {
        sandbox_id: ID.to_owned(),
        ..StopSandboxRequest::default()
    };
    sandboxes.stop_sandbox(limit(10), &request).unwrap();
    let request = WaitSandboxRequest {
        sandbox_id: ID.to_owned(),
        ..WaitSandboxRequest::default()
    };
    let ended = sandboxes.wait_sandbox(limit(10), &request).unwrap();
    assert_eq!(ended.exit_status, 0);
    assert_eq!(status(), "SANDBOX_NOTREADY");
    assert!(sandboxes.ping_sandbox(limit(10), &ping).is_err());
    let request = ShutdownSandboxRequest {
        sandbox_id: ID.to_owned(),
        ..ShutdownSandboxRequest::default()
    };
    // It may be gone before its answer is read.
    let _ = sandboxes.shutdown_sandbox(limit(10), &request);
    first.bundle = sandbox;
    first.call("delete", None, b"");
}
