//! Kubernetes' own validation of a runtime, `critest` of its cri-tools, where its program is named. Of its
//! images nothing is fetched: others stand for them.

mod images;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::{Client, Containerd, Network, settings};
use crate::image;

/// Names the program.
const PROGRAM: &str = "VIRTC_TEST_CRITEST";

/// What is left out, as a part of a case's name.
const LEFT_OUT: [&str; 7] = [
    // Images are containerd's affair, and come from the internet there.
    "Image Manager",
    // What only a host has, which is refused by name: see `node.rs`, and docs/kubernetes.md.
    "HostPID",
    "HostIpc is true",
    "HostNetwork is true",
    "portforward in host network",
    "'rshared'",
    // Looks for the words of another shell: see `paths.rs`.
    "MaskedPaths",
];

#[test]
fn the_validation_of_kubernetes_passes_but_for_what_only_a_host_has() {
    let Some(program) = std::env::var_os(PROGRAM) else {
        eprintln!("skipped: {PROGRAM} names no program");
        return;
    };
    let network = Network::new();
    let settings = |directory: &Path| settings(directory).replace(image::NAME, images::PAUSE);
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    images::import(&containerd);
    // What it writes below the directory for temporary files goes with ours.
    let directory = containerd.dir("critest");
    let said = directory.join("said");
    let socket = format!("unix://{}", containerd.socket().display());
    let log = File::create(&said).unwrap();
    // The shared memory that it makes goes with its namespace.
    let status = Command::new("unshare")
        .args(["--ipc", "nsenter"])
        .arg(format!("--net=/run/netns/{}", network.0))
        .arg(program)
        .args(["--runtime-endpoint", &socket, "--image-endpoint", &socket])
        .args(["--runtime-handler", "virtc", "--ginkgo.no-color"])
        .args(["--ginkgo.skip", &LEFT_OUT.join("|")])
        .env("TMPDIR", &directory)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .status()
        .unwrap();
    let said = fs::read_to_string(said).unwrap();
    let passed = said.lines().find(|line| line.contains(" Passed "));
    assert!(status.success() && passed.is_some(), "{status}\n{said}");
    println!("{}", passed.unwrap_or_default());
    // A case that is skipped in its middle removes nothing.
    let mut client = Client::connect(&containerd, &directory);
    for pod in client.pods() {
        client.stop_pod(&pod.id);
        client.remove_pod(&pod.id);
    }
}
