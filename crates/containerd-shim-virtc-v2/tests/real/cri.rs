//! Pods of Kubernetes, by the interface that its node agent uses.

mod attributes;
mod capabilities;
mod cgroup;
mod client;
mod critest;
mod lifecycle;
mod node;
mod paths;
mod propagation;
mod seccomp;
mod security;
mod streaming;
mod volumes;
mod websocket;

use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_cri::v1::{ContainerState, PodSandboxState, PortMapping};

use super::{Containerd, image};
use client::Client;

/// A network namespace that stands for the host's; it goes with this.
struct Network(String);

impl Network {
    fn new() -> Self {
        let name = format!("virtc-cri-{}", std::process::id());
        let ip = |args: &[&str]| {
            let done = Command::new("ip").args(args).status();
            assert!(done.expect("iproute2 is installed").success());
        };
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Something that is mounted until this goes.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(target: &Path) -> Self {
        mount(&["-t", "tmpfs", "tmpfs"], target);
        Self(target.to_owned())
    }

    /// A directory over itself, whose later mounts others may get.
    fn shared(target: &Path) -> Self {
        mount(&["--bind", target.to_str().unwrap()], target);
        let mounted = Self(target.to_owned());
        mount(&["--make-shared"], target);
        mounted
    }

    /// Unmounts it as an administrator does: not while somebody uses it.
    fn unmount(&self) -> bool {
        let done = Command::new("umount").arg(&self.0).output();
        done.unwrap().status.success()
    }
}

fn mount(args: &[&str], target: &Path) {
    let done = Command::new("mount").args(args).arg(target).status();
    assert!(done.unwrap().success());
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What was unmounted before is no error.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// The plug-in with CNI's bridge. The runtime is added by `virtc install containerd`.
fn settings(directory: &Path) -> String {
    let cni = directory.join("cni");
    std::fs::create_dir_all(&cni).unwrap();
    let network = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": true,
            "ipam": {
                "type": "host-local",
                "dataDir": directory.join("leases"),
                "ranges": [[{"subnet": "10.89.7.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }, {
            "type": "portmap",
            "capabilities": {"portMappings": true},
            "snat": true,
        }],
    });
    std::fs::write(cni.join("10-pods.conflist"), network.to_string()).unwrap();
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    [
        format!("[{cri}]\nsandbox_image = {:?}", image::NAME),
        "netns_mounts_under_state_dir = true".to_owned(),
        format!("[{cri}.cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = {cni:?}"),
    ]
    .join("\n")
}

#[test]
fn a_pod_of_kubernetes_lives_and_goes() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let logs = containerd.dir("logs");
    let mut client = Client::connect(&containerd, &logs);
    let pod = client.run_pod("web");
    let status = client.pod(&pod);
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    let address = status.network.unwrap().ip;
    assert!(address.starts_with("10.89.7."), "{address}");

    let one = client.create(&pod, "one", &["sh", "-c", "echo begun; exec sleep 1000"]);
    let state = client.container(&one).state();
    assert_eq!(state, ContainerState::ContainerCreated);
    client.start(&one);
    let two = client.create(&pod, "two", &["sh", "-c", "echo two; exit 5"]);
    client.start(&two);
    containerd.wait_for("the end of the second container", || {
        client.container(&two).state() == ContainerState::ContainerExited
    });
    assert_eq!(client.container(&two).exit_code, 5);
    let log = std::fs::read_to_string(logs.join("one.log")).unwrap();
    assert!(log.contains("stdout F begun"), "{log}");

    // Both have the pod's address, and its name.
    let exec = |client: &mut Client, command: &[&str]| client.exec(&one, command, 10).unwrap();
    let said = exec(&mut client, &["ip", "-o", "-4", "addr"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains(&address));
    let said = exec(&mut client, &["hostname"]);
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "web");
    let said = exec(&mut client, &["sh", "-c", "echo no >&2; exit 4"]);
    assert_eq!((said.exit_code, said.stderr.as_slice()), (4, &b"no\n"[..]));
    // One that takes too long is ended.
    assert!(client.exec(&one, &["sleep", "1000"], 1).is_err());

    // A third one in the place of the second.
    client.remove(&two);
    let three = client.create(&pod, "three", &["sleep", "1000"]);
    client.start(&three);
    client.stop(&three, 0);
    assert_eq!(client.container(&three).exit_code, 137);
    client.remove(&three);

    client.stop_pod(&pod);
    let state = client.pod(&pod).state();
    assert_eq!(state, PodSandboxState::SandboxNotready);
    let state = client.container(&one).state();
    assert_eq!(state, ContainerState::ContainerExited);
    client.remove_pod(&pod);
    assert!(client.pods().is_empty());
}

const WAIT: &str = "exec sleep 1000";

/// Serves one page on port 8080.
const SERVE: &str = "echo page > /tmp/page; exec httpd -f -p 8080 -h /tmp";

#[test]
fn pods_reach_each_other_and_their_loopback_is_reached_from_outside() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let mut client = Client::connect(&containerd, &containerd.dir("logs"));
    let published = client.try_run_pod("one", |config| {
        config.port_mappings = vec![PortMapping {
            container_port: 8080,
            host_port: 18080,
            ..PortMapping::default()
        }];
    });
    let pods = [published.unwrap(), client.run_pod("two")];
    let mut containers = Vec::new();
    let names = [["a", "b", "c"], ["d", "e", "f"]];
    for ((pod, names), first) in pods.iter().zip(names).zip([SERVE, WAIT]) {
        for (name, command) in names.into_iter().zip([first, WAIT, WAIT]) {
            let id = client.create(pod, name, &["sh", "-c", command]);
            client.start(&id);
            containers.push(id);
        }
    }
    let address = client.pod(&pods[0]).network.unwrap().ip;
    let page = format!("http://{address}:8080/page");
    containerd.wait_for("the page, from the other pod", || {
        let said = client.exec(&containers[3], &["wget", "-q", "-O", "-", &page], 10);
        said.is_ok_and(|said| said.stdout == b"page\n")
    });
    // Containers of a pod share its loopback, and so does what dials it on the host: port-forward.
    let local = "http://127.0.0.1:8080/page";
    let said = client.exec(&containers[1], &["wget", "-q", "-O", "-", local], 10);
    assert_eq!(said.unwrap().stdout, b"page\n");
    let fetched = |namespace: &str, page: &str| {
        let fetch = ["timeout", "10", "busybox", "wget", "-q", "-O", "-", page];
        let fetched = Command::new("nsenter")
            .arg(format!("--net={namespace}"))
            .args(fetch)
            .output();
        String::from_utf8(fetched.unwrap().stdout).unwrap()
    };
    let shim = containerd.shim(&pods[0]).as_raw_nonzero();
    assert_eq!(fetched(&format!("/proc/{shim}/ns/net"), local), "page\n");
    // A port of the host leads to it.
    let host = format!("/run/netns/{}", network.0);
    assert_eq!(fetched(&host, "http://127.0.0.1:18080/page"), "page\n");
    assert_eq!(fetched(&host, &page), "page\n");
    // The first one has made their cgroup's parent.
    for pod in pods.iter().rev() {
        client.stop_pod(pod);
        client.remove_pod(pod);
    }
    assert!(client.pods().is_empty());
}
