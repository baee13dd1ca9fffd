//! The uses of podman and docker that `tests/engines.sh` drives.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::host;

/// How many uses there are.
const USES: usize = 40;

/// How long all of them may take together, on a busy machine without KVM.
const LIMIT: Duration = Duration::from_secs(480);

#[test]
fn forty_uses_of_podman_pods_and_docker() {
    if !Path::new("/usr/sbin/dockerd").exists() {
        eprintln!("skipped: dockerd is missing, which scripts/setup-packages.sh installs");
        return;
    }
    let mut host = host();
    host.limit(LIMIT);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/engines.sh");
    let mut command = Command::new(script);
    command
        .arg(env!("CARGO_BIN_EXE_virtc"))
        .env("TMPDIR", host.dir("engines"));
    let run = host.start_command(command).wait();
    let told = run.out();
    let passed = told.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!((run.code(), passed), (0, USES), "{told}{}", run.err());
    let left: Vec<_> = std::fs::read_dir(host.dir("engines"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "the script leaves {left:?}: {}", run.err());
}
