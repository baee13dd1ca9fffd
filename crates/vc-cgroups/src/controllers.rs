//! What controllers need before a cgroup can be used.

use crate::dir::Dir;
use crate::error::Result;

/// The controllers of version 2 that limits and statistics of a sandbox need.
const WANTED: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];

/// Switches controllers on for the cgroups in `dir`, as far as the kernel allows: in a cgroup with
/// processes it does not, and [`crate::Stats`] says what is missing.
pub(crate) fn enable(dir: &Dir) {
    let list = |file| dir.read(file).ok().flatten().unwrap_or_default();
    let available = list("cgroup.controllers");
    let enabled = list("cgroup.subtree_control");
    let has = |list: &str, name| list.split_ascii_whitespace().any(|one| one == name);
    for name in WANTED {
        // One by one: the kernel takes all of a list or none.
        if has(&available, name)
            && !has(&enabled, name)
            && let Err(error) = dir.write("cgroup.subtree_control", &format!("+{name}"))
        {
            tracing::debug!(cgroup = %dir.path().display(), "{name} stays off: {error}");
        }
    }
}

/// Gives an empty cpuset of version 1 what its parent has; false when it vanished meanwhile.
pub(crate) fn fill_cpuset(parent: &Dir, child: &Dir) -> Result<bool> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (Some(own), Some(parents)) = (child.read(file)?, parent.read(file)?) else {
            return Ok(false);
        };
        if own.trim().is_empty() && !child.write(file, parents.trim())? {
            return Ok(false);
        }
    }
    Ok(true)
}
