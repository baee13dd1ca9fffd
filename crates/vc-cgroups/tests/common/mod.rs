//! What the tests on the host's own hierarchies share. They need root.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "what fails in a test fails the test, and not every test uses all"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use vc_cgroups::{Cgroup, CgroupPath, Hierarchies, Hierarchy};
use vc_types::ProcessIdentity;

/// The hierarchies of this host whose mounts `wanted` takes, given the line of mountinfo.
pub(crate) fn hierarchies_where(wanted: impl Fn(&str) -> bool) -> Option<Hierarchies> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines: Vec<_> = mountinfo.lines().filter(|line| wanted(line)).collect();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    Hierarchies::parse(&lines.join("\n"), &own).ok()
}

/// One way in which this host can be used.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) hierarchies: Hierarchies,
    _leftovers: Leftovers,
}

/// Every way in which this host can be used.
///
/// Version 2 alone is a cgroup of it that is said to be its root: what is switched on there is
/// nothing to the host.
pub(crate) fn ways() -> Vec<Way> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let mut ways = vec![Way {
        name: "all",
        hierarchies: Hierarchies::detect().unwrap(),
        _leftovers: Leftovers(Vec::new()),
    }];
    if let Some(hierarchies) = hierarchies_where(|line| line.contains(" - cgroup ")) {
        ways.push(Way {
            name: "version 1",
            hierarchies,
            _leftovers: Leftovers(Vec::new()),
        });
    }
    if let Some(hierarchies) = hierarchies_where(|line| line.contains(" - cgroup2 ")) {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vc-cgroups-test-{}-root-{number}", std::process::id());
        let root = hierarchies.iter().next().unwrap().mount_point().join(name);
        fs::create_dir(&root).unwrap();
        let mountinfo = format!("1 0 0:1 / {} rw - cgroup2 none rw", root.display());
        ways.push(Way {
            name: "version 2",
            hierarchies: Hierarchies::parse(&mountinfo, "0::/\n").unwrap(),
            _leftovers: Leftovers(vec![root]),
        });
    }
    ways
}

/// A path that no other test has, and whatever is below it: removed at the end, also of a test
/// that fails.
pub(crate) struct TestPath {
    path: CgroupPath,
    roots: Vec<PathBuf>,
}

impl TestPath {
    pub(crate) fn new(name: &str) -> Self {
        let path = format!("/vc-cgroups-test-{}-{name}", std::process::id());
        let roots = Hierarchies::detect().unwrap();
        Self {
            path: path.parse().unwrap(),
            roots: roots
                .iter()
                .map(|one| one.mount_point().to_owned())
                .collect(),
        }
    }

    pub(crate) fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// The cgroup itself in each hierarchy.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let below = &self.path.as_str()[1..];
        self.roots.iter().map(|root| root.join(below)).collect()
    }

    /// Whether nothing is there in any hierarchy.
    pub(crate) fn is_gone(&self) -> bool {
        self.directories().iter().all(|dir| !dir.exists())
    }
}

impl Drop for TestPath {
    fn drop(&mut self) {
        Leftovers(self.directories());
    }
}

/// Directories that are removed at the end of a test, also of one that fails.
pub(crate) struct Leftovers(pub(crate) Vec<PathBuf>);

impl Leftovers {
    /// Those of a cgroup.
    pub(crate) fn of(cgroup: &Cgroup) -> Self {
        Self(cgroup.directories().collect())
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        for dir in &self.0 {
            remove(dir);
        }
    }
}

/// What [`ways`] makes in another process of these tests, which may be killed.
pub(crate) fn leftovers_of(process: u32) -> Leftovers {
    let name = format!("vc-cgroups-test-{process}-root-0");
    let hierarchies = Hierarchies::detect().unwrap();
    let dirs = hierarchies.iter().map(|one| one.mount_point().join(&name));
    Leftovers(dirs.collect())
}

/// Removes a directory and those below it, as far as no process is in them.
pub(crate) fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// A child that is killed at the end of the test.
pub(crate) struct TestChild(pub(crate) Child);

impl TestChild {
    /// One that only waits.
    pub(crate) fn waiting() -> Self {
        Self::run(Command::new("sleep").arg("1000"))
    }

    pub(crate) fn shell(script: &str) -> Self {
        Self::run(Command::new("sh").args(["-c", script]))
    }

    fn run(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub(crate) fn identity(&self) -> ProcessIdentity {
        ProcessIdentity::of(self.pid()).unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// The cgroup it is in, in the hierarchy of these controllers.
    pub(crate) fn cgroup_in(&self, hierarchy: &Hierarchy) -> String {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.pid())).unwrap();
        let wanted = format!(":{}:", hierarchy.controllers().join(","));
        let line = text.lines().find(|line| line.contains(&wanted)).unwrap();
        line.splitn(3, ':').nth(2).unwrap().to_owned()
    }
}

impl Drop for TestChild {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What another process reads from a state.
pub(crate) fn stored(cgroup: &Cgroup) -> Cgroup {
    serde_json::from_str(&serde_json::to_string(cgroup).unwrap()).unwrap()
}
