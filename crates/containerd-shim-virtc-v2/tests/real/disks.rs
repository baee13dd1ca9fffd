//! Roots that are disks, as the snapshotters for block devices and for erofs describe them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use containerd_shim_protos::TaskClient;
use containerd_shim_protos::api::{CreateTaskRequest, DeleteRequest, StartRequest, WaitRequest};
use containerd_shim_protos::types::mount::Mount;
use serde_json::{Value, json};

use super::direct::{Direct, ID, client, delete, kill, limit, shut_down, wait};

const MEMBER: &str = "member";

/// A loop device; it goes with this.
struct Loop(String);

impl Loop {
    fn of(image: &Path) -> Self {
        let image = image.to_str().unwrap();
        let made = done("losetup", &["--find", "--show", image]);
        Self(made.trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[track_caller]
fn done(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn root(kind: &str, source: &str, options: &[&str]) -> Vec<Mount> {
    vec![Mount {
        type_: kind.to_owned(),
        source: source.to_owned(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Mount::default()
    }]
}

fn annotate(config: &mut Value, kind: &str) {
    config["annotations"] = json!({
        "io.kubernetes.cri.container-type": kind,
        "io.kubernetes.cri.sandbox-id": ID,
    });
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "ipc"}));
    // The disk has it.
    config["root"] = json!({"path": "rootfs"});
}

fn shell(config: &mut Value, script: &str) {
    config["process"]["args"] = json!(["/bin/sh", "-c", script]);
}

/// A bundle of another container in the pod.
fn member(direct: &Direct) -> PathBuf {
    let mut config: Value =
        serde_json::from_slice(&fs::read(direct.bundle.join("config.json")).unwrap()).unwrap();
    config["annotations"]["io.kubernetes.cri.container-type"] = json!("container");
    config["linux"]["cgroupsPath"] = json!(direct.host.cgroup(MEMBER));
    shell(
        &mut config,
        "cat /etc/passwd; grep ' / ' /proc/mounts; echo x > /file; exit 5",
    );
    let bundle = direct.host.dir("member");
    direct.host.dir("member/rootfs");
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    bundle
}

/// Runs the member to its end, and gives what it says.
fn run_member(client: &TaskClient, bundle: &Path, rootfs: &[Mount]) -> String {
    let output = bundle.join("output");
    let request = CreateTaskRequest {
        id: MEMBER.to_owned(),
        bundle: bundle.display().to_string(),
        rootfs: rootfs.to_vec(),
        stdout: format!("file://{}", output.display()),
        stderr: format!("file://{}", output.display()),
        ..CreateTaskRequest::default()
    };
    client.create(limit(60), &request).unwrap();
    let id = MEMBER.to_owned();
    let start = StartRequest {
        id: id.clone(),
        ..StartRequest::default()
    };
    client.start(limit(20), &start).unwrap();
    let wait = WaitRequest {
        id: id.clone(),
        ..WaitRequest::default()
    };
    assert_eq!(client.wait(limit(20), &wait).unwrap().exit_status, 5);
    let delete = DeleteRequest {
        id,
        ..DeleteRequest::default()
    };
    client.delete(limit(20), &delete).unwrap();
    let said = fs::read_to_string(&output).unwrap();
    fs::remove_file(output).unwrap();
    said
}

#[test]
fn a_disk_is_given_to_the_guest_as_the_root_of_a_container() {
    let direct = Direct::new(|config| {
        annotate(config, "sandbox");
        shell(config, "echo kept > /written; echo up; exec sleep 1000");
    });
    // containerd makes them, whatever is mounted there.
    direct.host.dir("bundle/rootfs");
    let files = direct.host.dir("image").join("root");
    let at = |name: &str| direct.bundle.join(name).display().to_string();
    let (disk, erofs) = (at("disk"), at("layer.erofs"));
    let files = files.to_str().unwrap();
    done("mkfs.ext4", &["-q", "-d", files, &disk, "32M"]);
    done("mkfs.erofs", &[&erofs, files]);
    let device = Loop::of(Path::new(&disk));

    let answer = direct.call("start", None, b"");
    let client = client(std::str::from_utf8(&answer).unwrap());
    let output = direct.bundle.join("output");
    let request = CreateTaskRequest {
        rootfs: root("ext4", &device.0, &["rw"]),
        stdout: format!("file://{}", output.display()),
        ..direct.create()
    };
    client.create(limit(60), &request).unwrap();
    // It is nobody else's meanwhile, and nothing of it is mounted on the host.
    let again = Command::new("mkfs.ext4").args(["-q", &device.0]).output();
    assert!(!again.unwrap().status.success());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        !mounts.contains(&device.0) && !mounts.contains(&erofs),
        "{mounts}"
    );
    let start = StartRequest {
        id: ID.to_owned(),
        ..StartRequest::default()
    };
    client.start(limit(20), &start).unwrap();

    // An image that comes to the running machine, and another time.
    let bundle = member(&direct);
    for _ in 0..2 {
        let said = run_member(&client, &bundle, &root("erofs", &erofs, &["ro", "loop"]));
        assert!(said.contains("root:x:0:0"), "{said}");
        assert!(said.contains("overlay / overlay ro,"), "{said}");
        assert!(said.contains("Read-only file system"), "{said}");
    }
    // One that cannot be read is an error of its creation, and the pod goes on.
    let broken = at("broken.erofs");
    fs::write(&broken, vec![0; 4096]).unwrap();
    let request = CreateTaskRequest {
        id: MEMBER.to_owned(),
        bundle: bundle.display().to_string(),
        rootfs: root("erofs", &broken, &["ro"]),
        ..CreateTaskRequest::default()
    };
    let refused = client.create(limit(60), &request).unwrap_err().to_string();
    assert!(refused.contains("cannot mount blk"), "{refused}");
    // And one that may be written, which is where the guest wrote once the container is gone.
    let image = at("image.ext4");
    done("mkfs.ext4", &["-q", "-d", files, &image, "32M"]);
    let said = run_member(&client, &bundle, &root("ext4", &image, &["loop"]));
    assert!(
        said.contains("/dev/vd") && said.contains(" / ext4 rw,"),
        "{said}"
    );
    assert_eq!(done("debugfs", &["-R", "cat /file", &image]), "x\n");

    assert_eq!(fs::read_to_string(&output).unwrap(), "up\n");
    client.kill(limit(10), &kill()).unwrap();
    assert_eq!(client.wait(limit(20), &wait()).unwrap().exit_status, 137);
    client.delete(limit(20), &delete()).unwrap();
    shut_down(&client);
    drop(device);
    assert_eq!(done("debugfs", &["-R", "cat /written", &disk]), "kept\n");
}
