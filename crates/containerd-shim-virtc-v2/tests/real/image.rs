//! An image with one static program under many names, as an archive that containerd imports.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What it is called.
pub(super) const NAME: &str = "docker.io/test/busybox:1";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

const PROGRAMS: [&str; 33] = [
    "sh",
    "echo",
    "cat",
    "sleep",
    "true",
    "head",
    "dd",
    "sha256sum",
    "id",
    "ls",
    "stty",
    "env",
    "wc",
    "seq",
    "kill",
    "touch",
    "ip",
    "hostname",
    "wget",
    "httpd",
    "grep",
    "mkdir",
    "mount",
    "mv",
    "nc",
    "ps",
    "readlink",
    "rm",
    "stat",
    "umount",
    "uname",
    "pwd",
    "brctl",
];

/// One that begins with the rights of its owner, as in many images.
const PRIVILEGED: &str = "ping";

/// Makes the archive below `directory`.
pub(super) fn archive(directory: &Path) -> PathBuf {
    root(directory);
    archive_of(directory, NAME, &["/bin/sleep", "100000"])
}

/// Makes the root of an image below `directory`.
pub(super) fn root(directory: &Path) -> PathBuf {
    let root = directory.join("root");
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "run"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for name in PROGRAMS {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let privileged = root.join("bin").join(PRIVILEGED);
    fs::copy("/bin/busybox", &privileged).unwrap();
    fs::set_permissions(&privileged, fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    root
}

/// Gives a root all programs that the static one is.
pub(super) fn link_all(root: &Path) {
    let listed = Command::new("/bin/busybox").arg("--list").output().unwrap();
    for name in String::from_utf8(listed.stdout).unwrap().lines() {
        let at = root.join("bin").join(name);
        if !at.exists() {
            symlink("busybox", at).unwrap();
        }
    }
}

/// Makes the archive of an image whose root is below `directory`.
pub(super) fn archive_of(directory: &Path, name: &str, command: &[&str]) -> PathBuf {
    let root = directory.join("root");
    let layout = directory.join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let layer = directory.join("layer.tar");
    tar(&root, &layer);
    let (layer_digest, layer) = blob(&layout, &fs::read(layer).unwrap(), LAYER);
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": command},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    });
    let (_, config) = blob(&layout, config.to_string().as_bytes(), CONFIG);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
    });
    let (_, mut manifest) = blob(&layout, manifest.to_string().as_bytes(), MANIFEST);
    manifest["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let archive = directory.join("image.tar");
    tar(&layout, &archive);
    archive
}

fn blob(layout: &Path, bytes: &[u8], media_type: &str) -> (String, Value) {
    let digest: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fs::write(layout.join("blobs/sha256").join(&digest), bytes).unwrap();
    let digest = format!("sha256:{digest}");
    let described = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
    (digest, described)
}

fn tar(directory: &Path, archive: &Path) {
    let made = Command::new("tar")
        .arg("-C")
        .arg(directory)
        .arg("-cf")
        .arg(archive)
        .arg(".")
        .status();
    assert!(made.unwrap().success());
}
