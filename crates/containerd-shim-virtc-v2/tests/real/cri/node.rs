//! What of the node a pod cannot have, and does not see.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use k8s_cri::v1::{NamespaceMode, NamespaceOption};
use nix::sched::{CloneFlags, setns};

use super::security::{WAIT, sandbox_context};
use super::{Client, Containerd, Network, settings};

/// A piece of the host's shared memory, which goes with this.
struct SharedMemory(String);

impl SharedMemory {
    const BYTES: &str = "1056768";

    fn new() -> Self {
        let made = Command::new("ipcmk").args(["-M", Self::BYTES]).output();
        let said = String::from_utf8(made.unwrap().stdout).unwrap();
        let own = Self(said.trim().rsplit(' ').next().unwrap().to_owned());
        let seen = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        assert!(seen.contains(Self::BYTES), "{seen}");
        own
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let _ = Command::new("ipcrm").args(["-m", &self.0]).status();
    }
}

/// Listens on the loopback of a network namespace.
fn listen_in(network: &str) -> TcpListener {
    let inside = File::open(format!("/run/netns/{network}")).unwrap();
    let listening = std::thread::spawn(move || {
        setns(inside, CloneFlags::CLONE_NEWNET).unwrap();
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
    });
    listening.join().unwrap()
}

#[test]
fn the_nodes_network_processes_and_shared_memory_are_refused_by_name_and_not_seen() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let mut client = Client::connect(&containerd, &containerd.dir("logs"));
    let node = NamespaceMode::Node.into();
    let options = NamespaceOption::default;
    let asked = [
        (
            "hostNetwork",
            NamespaceOption {
                network: node,
                ..options()
            },
        ),
        (
            "hostPID",
            NamespaceOption {
                pid: node,
                ..options()
            },
        ),
        (
            "hostIPC",
            NamespaceOption {
                ipc: node,
                ..options()
            },
        ),
    ];
    for (name, asked) in asked {
        let refused = client.try_run_pod(&name.to_lowercase(), |config| {
            sandbox_context(config).namespace_options = Some(asked);
        });
        let said = refused.unwrap_err().to_string();
        assert!(said.contains(name), "{said}");
    }
    for left in client.pods() {
        client.remove_pod(&left.id);
    }

    let _memory = SharedMemory::new();
    let listener = listen_in(&network.0);
    let port = listener.local_addr().unwrap().port();
    let pod = client.run_pod("alone");
    let id = client.begin(&pod, "alone", &WAIT, |_| {});
    let said = client.say(&id, "cat /proc/sysvipc/shm");
    assert!(!said.contains(SharedMemory::BYTES), "{said}");
    let said = client.say(&id, &format!("nc -w 2 127.0.0.1 {port} </dev/null"));
    assert!(said.contains("refused"), "{said}");
    let said = client.say(&id, "ps -o args");
    assert!(
        said.contains("sleep 1000") && !said.contains("containerd"),
        "{said}"
    );
    client.stop_pod(&pod);
    client.remove_pod(&pod);
}
