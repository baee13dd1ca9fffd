//! The cgroups that are of one test, by their names.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Where virtcontainers has the cgroups of its sandboxes.
const SANDBOXES: &str = "virtcontainers";

/// Where in a state root machines wait.
pub(crate) const WAITING: &str = ".waiting:vms";

/// Bytes of the state root's digest at the end of a sandbox's name.
const ROOT_DIGEST_BYTES: usize = 4;

/// Where a hierarchy is mounted: those of version 1, and the one of version 2.
fn mount_points() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounted = text.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let is_cgroup = matches!(kind.split(' ').next(), Some("cgroup" | "cgroup2"));
        is_cgroup.then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    });
    mounted.collect()
}

/// The cgroup that this path names, in each hierarchy that has it.
pub(crate) fn at(path: &str) -> Vec<PathBuf> {
    let below = path.trim_start_matches('/');
    let all = mount_points().into_iter().map(|mount| mount.join(below));
    all.filter(|directory| directory.exists()).collect()
}

/// The cgroups of the sandboxes of this state root, and of the machines that wait there.
pub(crate) fn of_sandboxes(root: &Path) -> Vec<PathBuf> {
    let mut found = of_root(root);
    found.extend(of_root(&root.join(WAITING)));
    found
}

fn of_root(root: &Path) -> Vec<PathBuf> {
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    let bytes = digest[..ROOT_DIGEST_BYTES].iter();
    let suffix: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    let suffix = format!("-{suffix}");
    let parents = at(SANDBOXES);
    let entries = parents.iter().flat_map(fs::read_dir).flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(&suffix))
        .map(|entry| entry.path())
        .collect()
}
