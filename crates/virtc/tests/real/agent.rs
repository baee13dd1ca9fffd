//! What the agent does that no command of virtc asks it for yet: its calls, in a machine that virtc
//! made.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use agent_protocol::agent::{
    CreateContainerRequest, ExecProcessRequest, RemoveContainerRequest, SignalProcessRequest,
    StartContainerRequest, StatsContainerRequest, Storage, UpdateContainerRequest,
};
use agent_protocol::agent_ttrpc::AgentServiceClient;
use agent_protocol::oci_convert::{process_to_message, resources_to_message, spec_to_message};
use agent_protocol::virtc::{ListProcessesRequest, WaitRequest, WaitResponse};
use agent_protocol::virtc_ttrpc::GuestServiceClient;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use protobuf::MessageField;
use serde_json::{Value, json};
use test_vm::Host;
use tokio::runtime::Runtime;
use ttrpc::asynchronous::{Client, transport::Socket};
use ttrpc::context::{self, Context};
use vc_agent_client::Transport;
use vc_types::AgentAddress;

use super::host;
use super::oci::bundle;

/// How long one call may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A machine with the running container `c1`, and its agent.
struct Guest {
    host: Host,
    runtime: Runtime,
    agent: AgentServiceClient,
    guest: GuestServiceClient,
}

impl Guest {
    /// Runs `script` in the container `c1`, whose root is the directory `root` of the host.
    fn new(script: &str, change: impl FnOnce(&mut Value)) -> Self {
        let host = host();
        let directory = bundle(&host, &["/bin/sh", "-c", script], change);
        let status = host
            .command(["create", "--bundle", directory.to_str().unwrap(), "c1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("err")).unwrap())
            .status()
            .unwrap();
        let err = fs::read_to_string(directory.join("err")).unwrap();
        assert!(status.success(), "{err}");
        host.virtc(["start", "c1"]).expect_code(0);

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let socket = host.root().join("c1/vsock/vsock.sock");
        let address = AgentAddress::HybridVsock { socket };
        let client = runtime.block_on(async {
            let stream = Transport::new(address, LIMIT)
                .connect(vc_types::guest::AGENT_PORT)
                .await
                .unwrap();
            Client::new(Socket::new(stream))
        });
        Self {
            host,
            runtime,
            agent: AgentServiceClient::new(client.clone()),
            guest: GuestServiceClient::new(client),
        }
    }

    /// A file in the root of all containers.
    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.host.dir("root").join(name)).unwrap_or_default()
    }

    /// Waits until a process has written a whole line into a file of the root.
    fn wait_for(&self, name: &str) -> String {
        let end = std::time::Instant::now() + LIMIT;
        while !self.file(name).ends_with('\n') {
            assert!(std::time::Instant::now() < end, "no {name}");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.file(name)
    }

    /// Makes another container with the same root, without starting it.
    fn create(
        &self,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Result<(), String> {
        let root = format!("/run/virtc/containers/{id}/rootfs");
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin", "A=b"],
                "cwd": "/", "noNewPrivileges": true,
            },
            "root": {"path": root},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
            ],
            "linux": {"namespaces": [{"type": "mount"}]},
        });
        change(&mut spec);
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let request = CreateContainerRequest {
            container_id: id.into(),
            OCI: MessageField::some(spec_to_message(&spec).unwrap()),
            storages: vec![Storage {
                driver: "bind".into(),
                driver_options: vec!["create-dirs".into()],
                source: "/run/virtc/shares/virtc-user/0-c1-root".into(),
                fstype: "bind".into(),
                options: vec!["rbind".into()],
                mount_point: root,
                ..Storage::default()
            }],
            ..CreateContainerRequest::default()
        };
        self.call(self.agent.create_container(limit(), &request))
            .map(drop)
    }

    fn start(&self, id: &str) -> Result<(), String> {
        let request = StartContainerRequest {
            container_id: id.into(),
            ..StartContainerRequest::default()
        };
        self.call(self.agent.start_container(limit(), &request))
            .map(drop)
    }

    fn run(&self, id: &str, args: &[&str], change: impl FnOnce(&mut Value)) {
        self.create(id, args, change).unwrap();
        self.start(id).unwrap();
    }

    /// Adds a process to a container, and waits for its end.
    fn exec(&self, id: &str, exec_id: &str, script: &str) -> WaitResponse {
        let process: Process = serde_json::from_value(json!({
            "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin"], "cwd": "/",
        }))
        .unwrap();
        let request = ExecProcessRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
            process: MessageField::some(process_to_message(&process).unwrap()),
            ..ExecProcessRequest::default()
        };
        self.call(self.agent.exec_process(limit(), &request))
            .unwrap();
        self.wait(id, exec_id)
    }

    fn wait(&self, id: &str, exec_id: &str) -> WaitResponse {
        let request = WaitRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
            ..WaitRequest::default()
        };
        self.call(self.guest.wait_process(limit(), &request))
            .unwrap()
    }

    /// The programs of a container's processes.
    fn processes(&self, id: &str) -> Vec<String> {
        let request = ListProcessesRequest {
            container_id: id.into(),
            ..ListProcessesRequest::default()
        };
        let answer = self.call(self.guest.list_processes(limit(), &request));
        let args = answer
            .unwrap()
            .processes
            .into_iter()
            .map(|p| p.args.join(" "));
        args.collect()
    }

    fn signal(&self, id: &str, signal: u32) {
        let request = SignalProcessRequest {
            container_id: id.into(),
            exec_id: id.into(),
            signal,
            ..SignalProcessRequest::default()
        };
        self.call(self.agent.signal_process(limit(), &request))
            .unwrap();
    }

    fn remove(&self, id: &str) {
        let request = RemoveContainerRequest {
            container_id: id.into(),
            ..RemoveContainerRequest::default()
        };
        self.call(self.agent.remove_container(limit(), &request))
            .unwrap();
    }

    /// The answer of a call, or what the agent says against it.
    fn call<T>(&self, call: impl Future<Output = ttrpc::Result<T>>) -> Result<T, String> {
        self.runtime.block_on(call).map_err(|error| match error {
            ttrpc::Error::RpcStatus(status) => status.message,
            error => error.to_string(),
        })
    }

    fn delete(self) {
        self.host.virtc(["delete", "--force", "c1"]).expect_code(0);
    }
}

fn limit() -> Context {
    context::with_duration(LIMIT)
}

/// Puts a program with the libraries that it needs into a root.
fn add_program(root: &Path, program: &str) {
    let listed = std::process::Command::new("ldd")
        .arg(program)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in [program].into_iter().chain(libraries) {
        let copy = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, &copy).unwrap();
        fs::set_permissions(copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn joining(kinds: &[&str], other: &str) -> Value {
    let joined = kinds
        .iter()
        .map(|kind| json!({"type": kind, "path": other}))
        .chain([json!({"type": "mount"})]);
    joined.collect()
}

#[test]
fn a_container_joins_the_namespaces_of_another() {
    let guest = Guest::new(
        "until [ -e /go ]; do sleep 0.1; done; touch /dev/mqueue/q; /usr/bin/ipcmk -M 4096 >/shm; \
         readlink /proc/self/ns/ipc /proc/self/ns/uts /proc/self/ns/pid >/c1; echo >>/c1; \
         exec sleep 1000",
        |config| {
            let mqueue =
                json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"});
            config["mounts"].as_array_mut().unwrap().push(mqueue);
        },
    );
    let root = guest.host.dir("root");
    add_program(&root, "/usr/bin/ipcmk");
    fs::write(root.join("go"), "").unwrap();
    let own = guest.wait_for("c1");
    assert!(
        guest.file("shm").contains("Shared memory id: 0"),
        "{}",
        guest.file("shm")
    );

    let shared = joining(&["ipc", "uts", "pid"], "container:c1");
    let script = "readlink /proc/self/ns/ipc /proc/self/ns/uts /proc/self/ns/pid >/c2; \
                  { hostname; ls /dev/mqueue; cat /proc/sysvipc/shm; } >/seen; echo >>/c2; \
                  exec sleep 999";
    guest.run("c2", &["/bin/sh", "-c", script], |spec| {
        spec["hostname"] = "other".into();
        spec["linux"]["namespaces"] = shared.clone();
    });
    assert_eq!(guest.wait_for("c2"), own);
    let seen = guest.file("seen");
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[..2], ["ocibox", "q"], "{seen}");
    // The header and the one segment, of this size.
    assert_eq!(lines.len(), 4, "{seen}");
    assert!(
        lines[3].split_whitespace().any(|word| word == "4096"),
        "{seen}"
    );

    // Each has its own processes, and in the other's namespace it is not the first.
    // The shell is about to become it.
    let end = std::time::Instant::now() + LIMIT;
    while guest.processes("c2") != ["sleep 999"] {
        let now = guest.processes("c2");
        assert!(std::time::Instant::now() < end, "{now:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(guest.processes("c1"), ["sleep 1000"]);
    assert_eq!(
        guest
            .exec("c2", "e1", "tr '\\0' ' ' </proc/1/cmdline >/first")
            .code,
        0
    );
    assert_eq!(guest.file("first"), "sleep 1000 ");
    guest.signal("c2", 15);
    assert_eq!(guest.wait("c2", "c2").signal, 15);

    let refused = |id: &str, other: &str, kind: &str| {
        let namespaces = joining(&[kind], other);
        let change = |spec: &mut Value| spec["linux"]["namespaces"] = namespaces;
        guest.create(id, &["/bin/true"], change).unwrap_err()
    };
    let error = refused("c3", "container:c2", "ipc");
    assert!(
        error.contains("\"c3\"") && error.contains("\"c2\", which has ended"),
        "{error}"
    );
    let error = refused("c3", "container:nobody", "uts");
    assert!(
        error.contains("\"c3\"") && error.contains("\"nobody\", which does not"),
        "{error}"
    );
    let error = refused("c3", "/proc/1/ns/ipc", "ipc");
    assert!(
        error.contains("/proc/1/ns/ipc") && error.contains("no namespace"),
        "{error}"
    );
    let error = refused("c3", "container:c1", "cgroup");
    assert!(error.contains("do not share"), "{error}");
    guest.remove("c2");

    // One that waits for its start can be joined too, and ends those in its pid namespace.
    guest
        .create("c4", &["/bin/sleep", "998"], |spec| {
            spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]);
        })
        .unwrap();
    guest.run("c5", &["/bin/sleep", "997"], |spec| {
        spec["linux"]["namespaces"] = joining(&["pid"], "container:c4");
    });
    guest.start("c4").unwrap();
    guest.signal("c4", 9);
    assert_eq!(guest.wait("c5", "c5").signal, 9);
    guest.delete();
}

#[test]
fn device_rules_are_enforced_and_can_be_changed() {
    let denied = json!({"allow": false, "access": "rwm"});
    let guest = Guest::new("exec sleep 1000", |config| {
        config["linux"]["devices"] = json!([
            {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666},
        ]);
        // More than any engine has, which the guest's kernel has to check too.
        let others = (0..1000)
            .map(|n| json!({"allow": n % 2 == 0, "type": "c", "major": 300 + n, "access": "rw"}));
        let rules: Vec<_> = [denied.clone()].into_iter().chain(others).collect();
        config["linux"]["resources"] = json!({"devices": rules});
    });
    let exec = |script: &str| guest.host.virtc(["exec", "c1", "/bin/sh", "-c", script]);
    exec("echo x >/dev/null && head -c 1 /dev/zero >/dev/null && ls /dev/kmsg").expect_code(0);
    exec("echo x >/dev/kmsg")
        .expect_code(1)
        .expect_err(&["Operation not permitted"]);

    let update = |devices: Value| {
        let resources: LinuxResources =
            serde_json::from_value(json!({"devices": devices})).unwrap();
        let request = UpdateContainerRequest {
            container_id: "c1".into(),
            resources: MessageField::some(resources_to_message(&resources).unwrap()),
            ..UpdateContainerRequest::default()
        };
        guest.call(guest.agent.update_container(limit(), &request))
    };
    let kmsg = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"});
    update(json!([denied, kmsg])).unwrap();
    exec("echo x >/dev/kmsg").expect_code(0);
    // Other limits leave the rules alone.
    update(json!([])).unwrap();
    exec("cat /dev/kmsg")
        .expect_code(1)
        .expect_err(&["Operation not permitted"]);
    let error = update(json!([{"allow": true, "type": "p", "access": "r"}])).unwrap_err();
    assert!(error.contains("linux.resources.devices"), "{error}");
    update(json!([denied])).unwrap();
    exec("echo x >/dev/kmsg").expect_code(1);
    guest.delete();
}

#[test]
fn hooks_run_in_the_container_before_its_program() {
    let guest = Guest::new("exec sleep 1000", |_| {});
    let hook =
        |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 20});
    let hooked = |hooks: Value| {
        move |spec: &mut Value| {
            spec["hooks"] = json!({"startContainer": hooks});
            spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]);
        }
    };
    let script = "{ cat; echo \" $A\"; } >/state";
    guest
        .create(
            "c2",
            &["/bin/sh", "-c", "cat /state >/seen"],
            hooked(json!([hook(script)])),
        )
        .unwrap();
    assert_eq!(guest.file("state"), "");
    guest.start("c2").unwrap();
    assert_eq!(guest.wait("c2", "c2").code, 0);
    let seen = guest.file("seen");
    let (state, environment) = seen.rsplit_once('}').unwrap();
    let state: Value = serde_json::from_str(&format!("{state}}}")).unwrap();
    assert_eq!(
        (&state["id"], &state["status"]),
        (&json!("c2"), &json!("created"))
    );
    assert_eq!(state["pid"], 1);
    assert_eq!(environment, " b\n");

    let failing = json!([hook("exit 0"), hook("echo because >&2; exit 3")]);
    guest
        .create("c3", &["/bin/sh", "-c", "echo ran >/ran"], hooked(failing))
        .unwrap();
    let error = guest.start("c3").unwrap_err();
    let texts = ["startContainer", "\"/bin/sh\"", "because", "\"c3\""];
    assert!(texts.iter().all(|text| error.contains(text)), "{error}");
    let ended = guest.wait("c3", "c3");
    assert!(
        ended.code != 0 && ended.start_error.contains("because"),
        "{ended}"
    );
    assert_eq!(guest.file("ran"), "");

    let error = guest.create("c4", &["/bin/true"], |spec| {
        spec["hooks"] = json!({"createContainer": [hook("true")]});
    });
    assert!(error.unwrap_err().contains("hooks.createContainer"));
    guest.delete();
}

#[test]
fn statistics_come_with_those_of_the_network() {
    let guest = Guest::new("exec sleep 1000", |_| {});
    let request = StatsContainerRequest {
        container_id: "c1".into(),
        ..StatsContainerRequest::default()
    };
    let stats = guest
        .call(guest.agent.stats_container(limit(), &request))
        .unwrap();
    assert!(stats.cgroup_stats.memory_stats.usage.usage > 0);
    assert!(
        stats
            .network_stats
            .iter()
            .all(|network| network.name != "lo")
    );
    guest.delete();
}
