//! What must not be there when a test is over.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{WaitOptions, wait};

use crate::cgroups;
use crate::processes::descendants;

/// How long after virtc its processes may live: what the design promises after a `kill -9`.
const END_LIMIT: Duration = Duration::from_secs(2);

/// What the name of each test's directory begins with.
pub(crate) const DIRECTORY_PREFIX: &str = "virtc-test-";

/// How often the process table is looked at meanwhile; nothing else says that a grandchild ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Where `ip netns` keeps network namespaces. The first one that is given a name makes it a mount.
const NAMED_NETWORKS: &str = "/run/netns";

/// The mounts of this mount namespace. Network namespaces that tests give names to are none of
/// virtc's: its own lie in the test's directory.
pub(crate) fn mounts(own: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_foreign = |line: &str, at: &str| {
        at == NAMED_NETWORKS || line.contains(" - nsfs ") && !Path::new(at).starts_with(own)
    };
    text.lines()
        .filter_map(|line| {
            let at = line.split(' ').nth(4)?;
            (!is_foreign(line, at)).then(|| at.to_owned())
        })
        .collect()
}

/// Tests run side by side, and what engines mount for one of them is in its own directory.
fn is_of_another_test(mount: &Path, root: &Path) -> bool {
    let Some(own) = root.parent() else {
        return false;
    };
    let is_a_tests = |directory: &Path| {
        let name = directory.file_name().map(|name| name.to_string_lossy());
        directory.parent() == own.parent()
            && name.is_some_and(|name| name.starts_with(DIRECTORY_PREFIX))
    };
    !mount.starts_with(own) && mount.ancestors().any(is_a_tests)
}

/// The parent of the cgroups that the test gave to its containers: the name of its directory.
pub(crate) fn cgroup(root: &Path) -> Option<String> {
    let name = root.parent()?.file_name()?;
    Some(format!("/{}", name.to_str()?))
}

/// Everything that is left, in words; waits for processes that are about to end.
pub(crate) fn find(root: &Path, mounts_before: &BTreeSet<String>) -> Vec<String> {
    let own = i32::try_from(std::process::id()).unwrap();
    let end = Instant::now() + END_LIMIT;
    let mut left: Vec<String> = loop {
        // Orphans that ended are ours to reap.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        let below = descendants(own);
        if below.is_empty() || Instant::now() >= end {
            let shown =
                |p: &crate::Process| format!("process {} ({}) {}", p.pid, p.state, p.command);
            break below.iter().map(shown).collect();
        }
        std::thread::sleep(LOOK_EVERY);
    };
    left.extend(
        mounts(root.parent().unwrap_or(root))
            .difference(mounts_before)
            .filter(|mount| !is_of_another_test(Path::new(mount), root))
            .map(|mount| format!("mount {mount}")),
    );
    let containers = cgroup(root).map(|path| cgroups::at(&path));
    let left_cgroups = cgroups::of_sandboxes(root).into_iter();
    left.extend(
        left_cgroups
            .chain(containers.into_iter().flatten())
            .map(|directory| format!("cgroup {}", directory.display())),
    );
    if let Ok(entries) = fs::read_dir(root) {
        left.extend(
            entries
                .flatten()
                .map(|entry| format!("file {}", entry.path().display())),
        );
    }
    left
}
