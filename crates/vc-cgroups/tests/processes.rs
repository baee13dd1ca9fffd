//! The processes of cgroups on the host's own hierarchies.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{TestChild, TestPath, hierarchies_where, leftovers_of, ways};
use vc_cgroups::{Cgroup, CgroupPath, Error, Hierarchies, Hierarchy, Membership};
use vc_types::ProcessIdentity;

#[test]
fn the_files_to_join_by_are_those_of_every_hierarchy() {
    let test = TestPath::new("join");
    let hierarchies = Hierarchies::detect().unwrap();
    let cgroup = Cgroup::create(&hierarchies, test.path()).unwrap();
    let files = cgroup.join_files().unwrap();
    assert_eq!(files.len(), hierarchies.iter().count());
    let child = TestChild::waiting();
    for file in files {
        fs::File::from(file)
            .write_all(child.pid().to_string().as_bytes())
            .unwrap();
    }
    for hierarchy in hierarchies.iter() {
        assert_eq!(child.cgroup_in(hierarchy), test.path().as_str());
    }
    assert_eq!(cgroup.pids().unwrap(), BTreeSet::from([child.pid()]));
    drop(child);
    cgroup.remove().unwrap();
}

#[test]
fn a_process_goes_back_to_where_it_was() {
    let test = TestPath::new("back");
    let hierarchies = Hierarchies::detect().unwrap();
    let before = Membership::of_caller(&hierarchies);
    let cgroup = Cgroup::create(&hierarchies, test.path()).unwrap();
    let child = TestChild::waiting();
    let were: Vec<_> = hierarchies.iter().map(|one| child.cgroup_in(one)).collect();
    cgroup.add(&child.identity()).unwrap();
    assert_eq!(cgroup.pids().unwrap().len(), 1);
    before.restore(&child.identity()).unwrap();
    let are: Vec<_> = hierarchies.iter().map(|one| child.cgroup_in(one)).collect();
    assert_eq!(are, were);
    cgroup.remove().unwrap();
    let identity = child.identity();
    drop(child);
    assert!(matches!(
        before.restore(&identity),
        Err(Error::Ended { .. })
    ));
}

#[test]
fn what_has_ended_is_not_added() {
    let test = TestPath::new("ended");
    let cgroup = Cgroup::create(&Hierarchies::detect().unwrap(), test.path()).unwrap();
    let child = TestChild::waiting();
    let (pid, identity) = (child.pid(), child.identity());
    drop(child);
    let error = cgroup.add(&identity).unwrap_err();
    assert!(matches!(error, Error::Ended { pid: ended, .. } if ended == pid));
    cgroup.remove().unwrap();
}

#[test]
fn whoever_makes_processes_faster_than_they_are_killed_is_killed() {
    let test = TestPath::new("forks");
    for way in ways() {
        let (hierarchies, way) = (&way.hierarchies, way.name);
        let cgroup = Cgroup::create(hierarchies, test.path()).unwrap();
        // It begins when it is told to, and ends by itself: a failed test is no fork bomb.
        let script = "read go; i=0; while [ $i -lt 4000 ]; do sleep 0.2 & i=$((i+1)); done";
        let mut child = TestChild::shell(script);
        cgroup.add(&child.identity()).unwrap();
        child.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
        while cgroup.pids().unwrap().len() < 20 {
            thread::yield_now();
        }
        cgroup.kill_all().unwrap();
        assert!(cgroup.pids().unwrap().is_empty(), "{way}");
        assert_eq!(child.0.wait().unwrap().signal(), Some(9), "{way}");
        cgroup.remove().unwrap();
    }
}

#[test]
fn cgroups_below_belong_to_it() {
    let test = TestPath::new("below");
    for way in ways() {
        let (hierarchies, way) = (&way.hierarchies, way.name);
        let cgroup = Cgroup::create(hierarchies, test.path()).unwrap();
        let inner = Cgroup::create(hierarchies, &test.path().join("a").unwrap()).unwrap();
        let inner = Cgroup::create(hierarchies, &inner.path().join("b").unwrap()).unwrap();
        let mut child = TestChild::waiting();
        inner.add(&child.identity()).unwrap();
        assert!(cgroup.pids().unwrap().contains(&child.pid()));
        cgroup.kill_all().unwrap();
        assert!(!child.is_running(), "{way}");
        cgroup.remove().unwrap();
        assert!(test.is_gone(), "{way}");
    }
}

#[test]
fn what_is_frozen_does_nothing_until_it_is_thawed_or_killed() {
    let test = TestPath::new("freeze");
    for way in ways() {
        let (hierarchies, way) = (&way.hierarchies, way.name);
        let cgroup = Cgroup::create(hierarchies, test.path()).unwrap();
        let mut child = TestChild::shell("while :; do :; done");
        cgroup.add(&child.identity()).unwrap();
        let _thaw = Thaw(cgroup.clone());
        assert!(runs_on(child.pid(), 0), "{way}");
        cgroup.freeze().unwrap();
        cgroup.freeze().unwrap();
        let frozen = ticks(child.pid());
        thread::sleep(Duration::from_millis(100));
        assert_eq!(ticks(child.pid()), frozen, "{way}");
        cgroup.thaw().unwrap();
        cgroup.thaw().unwrap();
        assert!(runs_on(child.pid(), frozen), "{way}");

        cgroup.freeze().unwrap();
        cgroup.kill_all().unwrap();
        assert!(!child.is_running(), "{way}");
        cgroup.remove().unwrap();
    }
}

/// Lets the processes go on at the end, also of a test that fails: they could not be killed.
struct Thaw(Cgroup);

impl Drop for Thaw {
    fn drop(&mut self) {
        for dir in self.0.directories() {
            // Each hierarchy has one of them or none.
            for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                if dir.join(file).exists() {
                    fs::write(dir.join(file), value).unwrap();
                }
            }
        }
    }
}

/// Whether a process gets more time of processors than this, within some seconds.
fn runs_on(pid: i32, after: u64) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        if ticks(pid) > after {
            return true;
        }
        thread::yield_now();
    }
    false
}

/// Time of processors that a process has used, in clock ticks.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn what_was_used_is_not_zero_and_what_is_not_counted_is_nothing() {
    let test = TestPath::new("stats");
    let hierarchies = Hierarchies::detect().unwrap();
    let cgroup = Cgroup::create(&hierarchies, test.path()).unwrap();
    // It uses memory once it is in, and says so.
    let script = "read go; x=$(head -c 8000000 /dev/zero | tr '\\0' a); echo ${#x}; read end";
    let mut child = TestChild::shell(script);
    cgroup.add(&child.identity()).unwrap();
    let mut stdin = child.0.stdin.take().unwrap();
    stdin.write_all(b"go\n").unwrap();
    let mut said = [0; 7];
    child
        .0
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    assert_eq!(&said, b"8000000");

    let stats = cgroup.stats().unwrap();
    let cpu = stats.cpu.unwrap();
    assert!(cpu.total_ns > 1_000_000, "{cpu:?}");
    assert!(cpu.user_ns > 0 && cpu.system_ns > 0, "{cpu:?}");
    let has = |controller: &str| {
        let mut all = hierarchies.iter();
        all.any(|one| one.controllers().iter().any(|name| name == controller))
    };
    if has("memory") {
        let memory = stats.memory.unwrap();
        assert!(memory.usage > 4_000_000, "{memory:?}");
        assert!(memory.max_usage.unwrap() >= memory.usage, "{memory:?}");
        assert_eq!(memory.limit, None);
        let dir = directory(&cgroup, &hierarchies, "memory");
        fs::write(dir.join("memory.limit_in_bytes"), "1073741824").unwrap();
        let limited = cgroup.stats().unwrap().memory.unwrap();
        assert_eq!(limited.limit, Some(1 << 30));
    }
    if has("pids") {
        let pids = stats.pids.unwrap();
        assert_eq!((pids.current, pids.limit), (1, None));
        let dir = directory(&cgroup, &hierarchies, "pids");
        fs::write(dir.join("pids.max"), "77").unwrap();
        assert_eq!(cgroup.stats().unwrap().pids.unwrap().limit, Some(77));
    }
    assert_eq!(stats.blkio.is_some(), has("blkio"));
    drop(child);
    cgroup.remove().unwrap();

    let Some(pids_alone) = hierarchies_where(|line| line.ends_with(",pids")) else {
        return;
    };
    let cgroup = Cgroup::create(&pids_alone, test.path()).unwrap();
    let stats = cgroup.stats().unwrap();
    assert_eq!(stats.pids.unwrap().current, 0);
    assert!(stats.cpu.is_none() && stats.memory.is_none() && stats.blkio.is_none());
    // Neither version has a freezer here.
    assert!(matches!(cgroup.freeze(), Err(Error::NoFreezer { .. })));
    cgroup.remove().unwrap();
}

fn directory(cgroup: &Cgroup, hierarchies: &Hierarchies, controller: &str) -> PathBuf {
    let mut both = hierarchies.iter().zip(cgroup.directories());
    let found = both.find(|(one, _)| one.controllers().iter().any(|name| name == controller));
    found.unwrap().1
}

/// Where the program that is started again finds the path; the test below starts it.
const INSIDE: &str = "VC_CGROUPS_TEST_INSIDE";

#[test]
fn the_calling_process_is_spared() {
    let test = TestPath::new("caller");
    // In a process of its own, with no other tests in it.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inside", "--ignored", "--nocapture"])
        .env(INSIDE, test.path().as_str())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _leftovers = leftovers_of(child.id());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{output:?}"
    );
}

#[test]
#[ignore = "a part of the test above"]
fn inside() {
    let Ok(path) = std::env::var(INSIDE) else {
        return;
    };
    let path = CgroupPath::new(path).unwrap();
    let me = i32::try_from(std::process::id()).unwrap();
    let home = home();
    for way in ways() {
        let (hierarchies, way) = (&way.hierarchies, way.name);
        let cgroup = Cgroup::create(hierarchies, &path.join(&way.replace(' ', "-")).unwrap());
        let cgroup = cgroup.unwrap();
        let mut child = TestChild::waiting();
        cgroup.add(&child.identity()).unwrap();
        cgroup.add(&ProcessIdentity::current().unwrap()).unwrap();
        assert!(
            matches!(cgroup.freeze(), Err(Error::CallerInside { .. })),
            "{way}"
        );
        cgroup.kill_all().unwrap();
        assert!(!child.is_running(), "{way}");
        assert_eq!(cgroup.pids().unwrap(), BTreeSet::from([me]), "{way}");
        for procs in &home {
            fs::write(procs, me.to_string()).unwrap();
        }
        cgroup.remove().unwrap();
    }
}

/// The `cgroup.procs` of where this process is.
fn home() -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let procs = |hierarchy: &Hierarchy| {
        let wanted = format!(":{}:", hierarchy.controllers().join(","));
        let path = own.lines().find_map(|line| line.split_once(&wanted));
        let below = path.unwrap().1.trim_start_matches('/');
        hierarchy.mount_point().join(below).join("cgroup.procs")
    };
    Hierarchies::detect().unwrap().iter().map(procs).collect()
}
