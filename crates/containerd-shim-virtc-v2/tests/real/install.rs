//! `virtc install containerd` on files of the test's own, and what `contrib/kubernetes` has for whole
//! clusters. That pods run with what it writes is shown by every test of the runtime interface.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use test_vm::{Host, Outcome};

struct Node {
    host: Host,
    directory: PathBuf,
}

impl Node {
    fn new() -> Self {
        let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-virtc-v2"));
        let host = Host::new(shim.with_file_name("virtc").to_str().unwrap());
        let directory = host.dir("node");
        Self { host, directory }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    #[track_caller]
    fn virtc(&self, command: &[&str]) -> Outcome {
        let (config, bin) = (self.at("etc/config.toml"), self.at("bin"));
        let places = [
            "--containerd-config",
            config.to_str().unwrap(),
            "--bin-dir",
            bin.to_str().unwrap(),
        ];
        self.host.virtc([command, &places].concat())
    }

    /// All that is there, with what is in it.
    fn all(&self) -> Vec<(PathBuf, String)> {
        let mut all = Vec::new();
        let mut pending = vec![self.directory.clone()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                let path = entry.path();
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    pending.push(path);
                    continue;
                }
                let text = match kind.is_symlink() {
                    true => fs::read_link(&path).unwrap().display().to_string(),
                    false => fs::read_to_string(&path).unwrap(),
                };
                all.push((path, text));
            }
        }
        all.sort();
        all
    }
}

#[test]
fn an_installation_is_undone_to_the_byte() {
    let node = Node::new();
    let config = node.at("etc/config.toml");
    fs::create_dir_all(node.at("etc/conf.d")).unwrap();
    let text = format!(
        "# ours\nversion = 2\nimports = [{:?}]\n[plugins.\"io.containerd.grpc.v1.cri\"] # cri\n  \
         sandbox_image = \"pause\"",
        node.at("etc/conf.d/*.toml")
    );
    fs::write(&config, &text).unwrap();
    let before = node.all();
    // What would be done is said, and nothing is done.
    let shown = node
        .virtc(&["install", "containerd", "--dry-run"])
        .expect_code(0)
        .out();
    assert!(
        shown.contains("+[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.virtc]"),
        "{shown}"
    );
    assert!(shown.contains("would link "), "{shown}");
    assert_eq!(node.all(), before);
    let done = node.virtc(&["install", "containerd"]).expect_code(0).out();
    assert!(done.contains("systemctl restart containerd"), "{done}");
    assert_eq!(
        fs::read_to_string(node.at("etc/config.toml.before-virtc")).unwrap(),
        text
    );
    assert!(node.at("bin/containerd-shim-virtc-v2").is_symlink());
    let installed = node.all();
    node.virtc(&["install", "containerd"]).expect_code(0);
    assert_eq!(node.all(), installed, "twice is once");
    let shown = node
        .virtc(&["uninstall", "containerd", "--dry-run"])
        .expect_code(0)
        .out();
    assert!(shown.contains("\n-runtime_type = "), "{shown}");
    assert_eq!(node.all(), installed);
    node.virtc(&["uninstall", "containerd"]).expect_code(0);
    assert_eq!(node.all(), before);
    node.virtc(&["uninstall", "containerd"]).expect_code(0);
    assert_eq!(node.all(), before);

    // Where another file has the plug-in's settings, that is the one which counts.
    let imported = node.at("etc/conf.d/cri.toml");
    let cri = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_selinux = false\n";
    fs::write(&imported, cri).unwrap();
    node.virtc(&["install", "containerd"]).expect_code(0);
    assert_eq!(fs::read_to_string(&config).unwrap(), text);
    assert!(
        fs::read_to_string(&imported)
            .unwrap()
            .contains("runtimes.virtc")
    );
    // With sandboxes, their runtime stays unless it must not.
    let mut sandboxes = node.host.root().into_os_string();
    sandboxes.push("-containerd/k8s.io/one");
    fs::create_dir_all(&sandboxes).unwrap();
    let said = node
        .virtc(&["uninstall", "containerd"])
        .expect_code(1)
        .err();
    assert!(said.contains("k8s.io/one"), "{said}");
    node.virtc(&["uninstall", "containerd", "--force"])
        .expect_code(0);
    fs::remove_dir_all(Path::new(&sandboxes).parent().unwrap().parent().unwrap()).unwrap();
    assert_eq!(fs::read_to_string(&imported).unwrap(), cri);

    // From nothing, and back to it; and with a host on which nothing would start, nothing is done.
    fs::remove_file(&imported).unwrap();
    fs::remove_file(&config).unwrap();
    node.virtc(&["install", "containerd"]).expect_code(0);
    node.virtc(&["uninstall", "containerd"]).expect_code(0);
    assert_eq!(node.all(), []);
    let mut node = node;
    node.host.env("VIRTC_GUEST_ASSETS", "/nonexistent");
    let said = node.virtc(&["install", "containerd"]).expect_code(1).err();
    assert!(said.contains("virtc check"), "{said}");
    assert_eq!(node.all(), []);
}

fn contrib(name: &str) -> String {
    format!(
        "{}/../../contrib/kubernetes/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// A manifest as Kubernetes' own client reads it; nothing where there is none.
fn manifest(name: &str) -> Option<Value> {
    let label = ["label", "--local", "-o", "json", "read=yes", "-f"];
    let read = Command::new("kubectl")
        .args(label)
        .arg(contrib(name))
        .output();
    let Ok(read) = read else {
        eprintln!("skipped: kubectl is missing");
        return None;
    };
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(read.status.success(), "{name}: {said}");
    Some(serde_json::from_slice(&read.stdout).unwrap())
}

#[test]
fn the_manifests_are_what_they_say() {
    let read = |name| fs::read_to_string(contrib(name)).unwrap();
    // No tabs, no line that begins nowhere: what can be said of them without a parser.
    let all = [
        "runtimeclass.yaml",
        "install.yaml",
        "pod.yaml",
        "remove/daemonset.yaml",
    ];
    for name in all {
        let text = read(name);
        assert!(
            !text.contains('\t') && text.contains("\napiVersion: "),
            "{name}"
        );
        for line in text.lines() {
            let spaces = line.len() - line.trim_start().len();
            assert_eq!(spaces % 2, 0, "{name}: {line}");
        }
    }
    for name in ["kustomization.yaml", "remove/kustomization.yaml"] {
        let directory = Path::new(name).parent().unwrap();
        let text = read(name);
        let resources = text.lines().filter_map(|line| line.strip_prefix("  - "));
        for resource in resources {
            assert!(
                all.contains(&directory.join(resource).to_str().unwrap()),
                "{resource}"
            );
        }
    }
    let Some(class) = manifest("runtimeclass.yaml") else {
        return;
    };
    assert_eq!(class["handler"], "virtc");
    let label = &class["scheduling"]["nodeSelector"];
    assert_eq!(label["virtcontainers.io/runtime"], "virtc");
    for (name, action) in [
        ("install.yaml", "install"),
        ("remove/daemonset.yaml", "remove"),
    ] {
        let pod = &manifest(name).unwrap()["spec"]["template"]["spec"];
        assert_eq!(pod["nodeSelector"]["virtcontainers.io/runtime"], "virtc");
        assert_eq!(pod["hostPID"], true);
        let first = &pod["initContainers"][0];
        assert_eq!(first["command"], serde_json::json!(["/node.sh", action]));
    }
    assert_eq!(
        manifest("pod.yaml").unwrap()["spec"]["runtimeClassName"],
        "virtc"
    );
}

#[test]
fn a_node_gets_the_programs_and_loses_them() {
    let node = Node::new();
    let make = |name: &str, text: &str| {
        let path = node.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let programs = ["bin/virtc", "bin/containerd-shim-virtc-v2"];
    for program in programs {
        make(&format!("files/{program}"), "program");
    }
    let guest = "share/virtcontainers/guest";
    make(&format!("files/{guest}/0123/vmlinux"), "kernel");
    std::os::unix::fs::symlink("0123", node.at(&format!("files/{guest}/current"))).unwrap();
    fs::create_dir_all(node.at("host/usr/local")).unwrap();
    let run = |action: &str| {
        let output = Command::new("/bin/busybox")
            .args(["sh", &contrib("node.sh"), action])
            .env("HOST", node.at("host"))
            .env("FILES", node.at("files"))
            .env("ON_NODE", "echo")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let local = node.at("host/usr/local");
    for _ in 0..2 {
        assert_eq!(
            run("install"),
            "/usr/local/bin/virtc install containerd --restart\n"
        );
        assert_eq!(
            fs::read_to_string(local.join(guest).join("current/vmlinux")).unwrap(),
            "kernel"
        );
        assert_eq!(fs::read_dir(local.join(guest)).unwrap().count(), 2);
        assert_eq!(fs::read_dir(local.join("bin")).unwrap().count(), 2);
    }
    assert_eq!(
        run("remove"),
        "/usr/local/bin/virtc uninstall containerd --restart\n"
    );
    assert_eq!(fs::read_dir(local.join("bin")).unwrap().count(), 0);
    assert!(!local.join("share/virtcontainers").exists());
    assert_eq!(run("remove"), "", "nothing is left to remove");
}
