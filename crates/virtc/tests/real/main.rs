//! `virtc run` on real virtual machines: what a user does, and what is left afterwards.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test speaks by failing"
)]

mod agent;
mod cache;
mod check;
mod cli;
mod clocks;
mod cni;
mod cp;
mod device_types;
mod differences;
mod docker;
mod docker_network;
mod ends;
mod ends_meanwhile;
mod engine_network;
mod engines;
mod exec;
mod factory;
mod faults;
mod files;
mod filters;
mod host_side;
mod host_system;
mod hot_plug;
mod kill_matrix;
mod kills;
mod library;
mod loopback;
mod machine;
mod network;
mod network_endpoints;
mod network_hostile;
mod oci;
mod own_kernel;
mod pod_cgroup;
mod podman;
mod podman_network;
mod podman_pods;
mod ready_made;
mod resize;
mod round_trips;
mod run_network;
mod signals;
mod spec;
mod start;
mod streams;
mod template_makers;
mod templates;
mod terminal;
mod wrong_input;

use test_vm::Host;

/// The program under test.
fn host() -> Host {
    Host::with_machines(env!("CARGO_BIN_EXE_virtc"), start::origin())
}

/// Whether nothing of what is left lives: files and cgroups are removed by whoever comes next.
fn is_dead(left: &[String]) -> bool {
    let dead = |what: &String| what.starts_with("file ") || what.starts_with("cgroup ");
    left.iter().all(dead)
}

/// A root directory with one static program under many names.
fn busybox_root(host: &Host) -> std::path::PathBuf {
    let root = host.dir("root");
    let bin = root.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for name in ["etc", "proc"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::write(root.join("etc/marker"), "made by the test\n").unwrap();
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
    for name in [
        "sh", "true", "echo", "cat", "ls", "id", "touch", "dd", "rm", "sleep", "stat", "stty",
        "test", "hostname", "ps",
    ] {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
    root
}
