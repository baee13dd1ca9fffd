//! The machine of a pod in the pod's cgroup: the node counts it, and the pod's limits hold for it.

use std::fs;
use std::path::{Path, PathBuf};

use test_vm::descendants;

use super::{Client, Containerd, Network, settings};

/// What a guest has touched once it serves, at least.
const TOUCHED: u64 = 64 << 20;

/// A limit in which no machine boots.
const TOO_LITTLE: u64 = 24 << 20;

/// The cgroup of a pod as a node makes it, where memory is counted. It goes with this.
struct PodCgroup {
    directory: PathBuf,
    is_v2: bool,
}

impl PodCgroup {
    fn new(path: &str) -> Self {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let is_v2 = !v1.exists();
        let root = if is_v2 { v1.parent().unwrap() } else { v1 };
        if is_v2 {
            fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        let directory = root.join(path.trim_start_matches('/'));
        fs::create_dir(&directory).unwrap();
        Self { directory, is_v2 }
    }

    fn limit(&self, bytes: u64) {
        let file = ["memory.limit_in_bytes", "memory.max"][usize::from(self.is_v2)];
        fs::write(self.directory.join(file), bytes.to_string()).unwrap();
    }

    fn used(&self) -> u64 {
        let file = ["memory.usage_in_bytes", "memory.current"][usize::from(self.is_v2)];
        let text = fs::read_to_string(self.directory.join(file)).unwrap();
        text.trim().parse().unwrap()
    }

    /// How often the limit was reached.
    fn reached(&self) -> u64 {
        let (file, key) = match self.is_v2 {
            false => ("memory.failcnt", ""),
            true => ("memory.events", "max "),
        };
        let text = fs::read_to_string(self.directory.join(file)).unwrap();
        let mut numbers = text.lines().filter_map(|line| line.strip_prefix(key));
        numbers.find_map(|number| number.parse().ok()).unwrap()
    }

    /// The names of the cgroups below.
    fn below(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).unwrap().flatten();
        let directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        directories
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for PodCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.directory);
    }
}

#[test]
fn the_machine_of_a_pod_is_in_the_pods_cgroup_and_held_to_its_limit() {
    let network = Network::new();
    let Some(mut containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let logs = containerd.dir("logs");
    containerd.restart_with_variable("VIRTC_RUNTIME_SANDBOX_CGROUP", "pod");
    let path = containerd.cgroup();
    let pod_cgroup = PodCgroup::new(&path);
    pod_cgroup.limit(3 << 30);
    let mut client = Client::connect(&containerd, &logs);
    let pod = client.run_pod("web");

    // Every process of the machine, in every hierarchy, and its keeper.
    let shim = containerd.shim(&pod).as_raw_nonzero().get();
    let of = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let keeper = of(shim);
    let container = format!(":{path}/{pod}");
    let is_there = keeper.lines().all(|line| line.ends_with(&container));
    assert!(is_there, "{keeper}");
    let machine = descendants(shim);
    let is_vmm = |process: &test_vm::Process| process.command.contains("qemu");
    assert!(
        machine.iter().any(is_vmm) && machine.len() >= 3,
        "{machine:?}"
    );
    let beside = format!(":{path}/virtc-{pod}-");
    for process in &machine {
        let its = of(process.pid);
        let is_there = its.lines().all(|line| line.contains(&beside));
        assert!(is_there, "{}: {its}", process.name);
    }
    assert!(pod_cgroup.used() > TOUCHED, "{}", pod_cgroup.used());

    // What its containers use is told by the guest, as before.
    let one = client.create(&pod, "one", &["sleep", "1000"]);
    client.start(&one);
    let stats = client.stats(&one);
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);

    client.stop_pod(&pod);
    assert_eq!(pod_cgroup.below(), Vec::<String>::new());
    client.remove_pod(&pod);

    assert_eq!(pod_cgroup.reached(), 0);
    pod_cgroup.limit(TOO_LITTLE);
    client.try_run_pod("tight", |_| {}).unwrap_err();
    assert!(pod_cgroup.reached() > 0);
    assert_eq!(pod_cgroup.below(), Vec::<String>::new());
    assert!(client.pods().is_empty());
}
