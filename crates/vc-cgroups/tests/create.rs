//! Making and removing cgroups on the host's own hierarchies.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::{Leftovers, TestChild, TestPath, hierarchies_where, stored, ways};
use vc_cgroups::{Cgroup, CgroupPath, DEFAULT_PARENT, Error, Hierarchies, Layout};

#[test]
fn it_is_made_in_every_hierarchy_and_removed_with_its_parents() {
    let test = TestPath::new("every");
    let path = test.path().join("a").unwrap().join("b").unwrap();
    for way in ways() {
        let (hierarchies, way) = (&way.hierarchies, way.name);
        let cgroup = Cgroup::create(hierarchies, &path).unwrap();
        assert!(cgroup.is_ours() && cgroup.exists().unwrap());
        assert_eq!(cgroup.directories().count(), hierarchies.iter().count());
        assert!(cgroup.directories().all(|dir| dir.is_dir()), "{way}");

        let mut child = TestChild::waiting();
        cgroup.add(&child.identity()).unwrap();
        for hierarchy in hierarchies.iter() {
            assert!(child.cgroup_in(hierarchy).ends_with(path.as_str()));
        }
        let cgroup = stored(&cgroup);
        assert!(cgroup.pids().unwrap().contains(&child.pid()));
        cgroup.kill_all().unwrap();
        assert!(!child.is_running());
        assert_eq!(cgroup.remove().unwrap(), [] as [&Path; 0]);
        assert!(test.is_gone(), "{way}");
        // Again, and everything that can be asked of what is gone.
        assert!(cgroup.remove().unwrap().is_empty());
        assert!(cgroup.pids().unwrap().is_empty());
        assert!(!cgroup.exists().unwrap());
        cgroup.kill_all().unwrap();
        assert!(matches!(cgroup.stats(), Err(Error::Gone { .. })));
        assert!(matches!(cgroup.join_files(), Err(Error::Gone { .. })));
        assert!(matches!(cgroup.freeze(), Err(Error::Gone { .. })));
    }
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let test = TestPath::new("failed");
    let no_mount = tempfile::tempdir().unwrap();
    // The freezer's mount is said to be where none is; others come before and after it.
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let good = Hierarchies::parse(&mountinfo, &own).unwrap();
    let victim = good.iter().nth(good.iter().count() / 2).unwrap();
    let from = format!(" {} ", victim.mount_point().display());
    let bad = mountinfo.replace(&from, &format!(" {} ", no_mount.path().display()));
    let bad = Hierarchies::parse(&bad, &own).unwrap();

    let path = test.path().join("a").unwrap();
    let error = Cgroup::create(&bad, &path).unwrap_err();
    assert!(matches!(error, Error::NotMounted { .. }), "{error}");
    assert!(test.is_gone());

    // It fails while it is made, too: a plan of a good host, and the mount vanishes.
    let plan = serde_json::to_string(&Cgroup::plan(&good, &path).unwrap()).unwrap();
    let from = format!("\"{}\"", victim.mount_point().display());
    assert!(plan.contains(&from));
    let plan = plan.replace(&from, &format!("{:?}", no_mount.path()));
    let plan: Cgroup = serde_json::from_str(&plan).unwrap();
    assert!(plan.make().is_err());
    assert!(test.is_gone());
    assert_eq!(fs::read_dir(no_mount.path()).unwrap().count(), 0);
}

#[test]
fn what_was_there_is_joined_and_left_alone() {
    let test = TestPath::new("joined");
    for dir in test.directories() {
        fs::create_dir(&dir).unwrap();
    }
    let hierarchies = Hierarchies::detect().unwrap();
    let cgroup = stored(&Cgroup::create(&hierarchies, test.path()).unwrap());
    assert!(!cgroup.is_ours());
    cgroup.kill_all().unwrap();
    let mut child = TestChild::waiting();
    // An empty cpuset was filled, or this would fail.
    cgroup.add(&child.identity()).unwrap();
    assert!(cgroup.pids().unwrap().contains(&child.pid()));

    assert!(matches!(cgroup.kill_all(), Err(Error::NotOurs { .. })));
    assert!(matches!(cgroup.freeze(), Err(Error::NotOurs { .. })));
    assert!(cgroup.remove().unwrap().is_empty());
    assert!(child.is_running());
    drop(child);
    assert!(cgroup.remove().unwrap().is_empty());
    assert!(test.directories().iter().all(|dir| dir.is_dir()));

    // By its name it can be taken over.
    let adopted = Cgroup::adopt(&hierarchies, test.path()).unwrap().unwrap();
    let mut child = TestChild::waiting();
    adopted.add(&child.identity()).unwrap();
    adopted.kill_all().unwrap();
    assert!(!child.is_running());
    adopted.remove().unwrap();
    assert!(test.is_gone());
    assert!(Cgroup::adopt(&hierarchies, test.path()).unwrap().is_none());
}

#[test]
fn a_plan_is_enough_to_remove_what_was_made() {
    let test = TestPath::new("plan");
    let path = test.path().join("a").unwrap();
    let hierarchies = Hierarchies::detect().unwrap();
    let plan = Cgroup::plan(&hierarchies, &path).unwrap();
    let state = stored(&plan);
    assert!(test.is_gone());
    // As when it was killed before it made anything.
    assert!(state.remove().unwrap().is_empty());
    // And after; the cgroup below it is what one of its processes made.
    let made = plan.make().unwrap();
    for dir in made.directories() {
        fs::create_dir(dir.join("below")).unwrap();
    }
    assert!(state.remove().unwrap().is_empty());
    assert!(test.is_gone());
}

#[test]
fn a_parent_stays_as_long_as_others_use_it_and_the_last_one_removes_it() {
    let test = TestPath::new("parent");
    let hierarchies = Hierarchies::detect().unwrap();
    let create = |name| Cgroup::create(&hierarchies, &test.path().join(name).unwrap()).unwrap();
    let (first, second) = (create("first"), create("second"));
    assert_eq!(first.remove().unwrap(), test.directories());
    assert!(second.directories().all(|dir| dir.is_dir()));
    assert!(second.remove().unwrap().is_empty());
    assert!(test.is_gone());
    assert!(first.remove().unwrap().is_empty());
}

#[test]
fn a_parent_that_somebody_else_made_stays() {
    let test = TestPath::new("theirs");
    for dir in test.directories() {
        fs::create_dir(&dir).unwrap();
    }
    let hierarchies = Hierarchies::detect().unwrap();
    let create = |name| Cgroup::create(&hierarchies, &test.path().join(name).unwrap()).unwrap();
    let (first, second) = (create("first"), create("second"));
    assert!(first.remove().unwrap().is_empty());
    assert!(second.remove().unwrap().is_empty());
    assert!(test.directories().iter().all(|dir| dir.is_dir()));
}

#[test]
fn the_default_parent_is_removed_by_the_last() {
    let hierarchies = Hierarchies::detect().unwrap();
    let create = |name| {
        let name = format!("vc-cgroups-test-{}-{name}", std::process::id());
        let path = CgroupPath::below_default_parent(&name).unwrap();
        let plan = Cgroup::plan(&hierarchies, &path).unwrap();
        (Leftovers::of(&plan), plan.make().unwrap())
    };
    let ((_one, first), (_two, second)) = (create("first"), create("second"));
    first.remove().unwrap();
    let others = second.remove().unwrap();
    for hierarchy in hierarchies.iter() {
        let parent = hierarchy.mount_point().join(DEFAULT_PARENT);
        assert!(!parent.exists() || others.contains(&parent));
    }
}

#[test]
fn whoever_leaves_a_parent_does_not_disturb_whoever_comes() {
    let hierarchies = Hierarchies::detect().unwrap();
    // Everybody who leaves removes this parent, as long as nobody is in it.
    let come_and_leave = |name: &str| {
        let name = format!("vc-cgroups-test-{}-race-{name}", std::process::id());
        let path = CgroupPath::below_default_parent(&name).unwrap();
        for _ in 0..200 {
            let plan = Cgroup::plan(&hierarchies, &path).unwrap();
            let _leftovers = Leftovers::of(&plan);
            let cgroup = plan.make().unwrap();
            assert!(cgroup.directories().all(|dir| dir.is_dir()));
            cgroup.remove().unwrap();
            assert!(!cgroup.exists().unwrap());
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| come_and_leave("a"));
        scope.spawn(|| come_and_leave("b"));
    });
}

#[test]
fn a_relative_path_is_below_the_own_cgroup() {
    let name = format!("vc-cgroups-test-{}-relative", std::process::id());
    let path: CgroupPath = name.parse().unwrap();
    let hierarchies = Hierarchies::detect().unwrap();
    let plan = Cgroup::plan(&hierarchies, &path).unwrap();
    let _leftovers = Leftovers::of(&plan);
    let cgroup = plan.make().unwrap();
    let child = TestChild::waiting();
    let alone = hierarchies.layout() == Layout::V2;
    for (hierarchy, dir) in hierarchies.iter().zip(cgroup.directories()) {
        let own = child.cgroup_in(hierarchy);
        let below = Path::new(own.trim_start_matches('/'));
        let base = if alone {
            below.parent().unwrap_or(below)
        } else {
            below
        };
        assert_eq!(dir, hierarchy.mount_point().join(base).join(&name));
        assert!(dir.is_dir());
    }
    cgroup.remove().unwrap();
    assert!(!cgroup.exists().unwrap());
}

#[test]
fn controllers_of_version_2_are_switched_on_where_it_is_alone() {
    let Some(hierarchies) = hierarchies_where(|line| line.contains(" - cgroup2 ")) else {
        return;
    };
    let root = hierarchies.iter().next().unwrap().mount_point().to_owned();
    let read = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).unwrap();
    let available = read(&root, "cgroup.controllers");
    // What is switched on for the test goes off again, after its cgroups are gone.
    let _switches = Switches::of(&root);
    let test = TestPath::new("controllers");
    let path = test.path().join("a").unwrap();
    let cgroup = Cgroup::create(&hierarchies, &path).unwrap();
    let dir = cgroup.directories().next().unwrap();
    let found = read(&dir, "cgroup.controllers");
    cgroup.remove().unwrap();
    for name in ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"] {
        let is_in = |text: &str| text.split_whitespace().any(|one| one == name);
        assert_eq!(is_in(&found), is_in(&available), "{name}");
    }
}

/// Switches controllers off that were off.
struct Switches {
    file: PathBuf,
    before: String,
}

impl Switches {
    fn of(root: &Path) -> Self {
        let file = root.join("cgroup.subtree_control");
        let before = fs::read_to_string(&file).unwrap();
        Self { file, before }
    }
}

impl Drop for Switches {
    fn drop(&mut self) {
        for name in fs::read_to_string(&self.file).unwrap().split_whitespace() {
            if !self.before.split_whitespace().any(|one| one == name) {
                fs::write(&self.file, format!("-{name}")).unwrap();
            }
        }
    }
}

#[test]
fn a_hybrid_host_keeps_its_version_2_as_it_is() {
    let hierarchies = Hierarchies::detect().unwrap();
    if hierarchies.layout() != Layout::Hybrid {
        return;
    }
    let test = TestPath::new("hybrid");
    let cgroup = Cgroup::create(&hierarchies, &test.path().join("a").unwrap()).unwrap();
    let v2 = hierarchies.iter().last().unwrap().mount_point();
    let parent = v2.join(&test.path().as_str()[1..]);
    let enabled = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap();
    assert_eq!(enabled, "");
    cgroup.remove().unwrap();
}

#[test]
fn removal_waits_for_what_is_just_ending() {
    let test = TestPath::new("ending");
    for way in ways() {
        let (hierarchies, way) = (&way.hierarchies, way.name);
        let cgroup = Cgroup::create(hierarchies, test.path()).unwrap();
        let mut child = TestChild::waiting();
        cgroup.add(&child.identity()).unwrap();
        // It ends while the removal waits, and nobody reaps it.
        thread::scope(|scope| {
            let removal = scope.spawn(|| cgroup.remove());
            child.0.kill().unwrap();
            removal.join().unwrap().unwrap();
        });
        assert!(!cgroup.exists().unwrap(), "{way}");
    }
}

#[test]
fn only_what_is_unused_is_removed_at_once() {
    let test = TestPath::new("unused");
    for way in ways() {
        let (hierarchies, way) = (&way.hierarchies, way.name);
        let cgroup = Cgroup::create(hierarchies, test.path()).unwrap();
        let mut child = TestChild::waiting();
        cgroup.add(&child.identity()).unwrap();
        assert!(!cgroup.remove_unused().unwrap(), "{way}");
        assert!(cgroup.directories().all(|dir| dir.is_dir()), "{way}");
        assert!(child.is_running());
        cgroup.kill_all().unwrap();
        assert!(cgroup.remove_unused().unwrap(), "{way}");
        assert!(!cgroup.exists().unwrap() && test.is_gone(), "{way}");
        // That it is gone is fine.
        assert!(cgroup.remove_unused().unwrap());

        // A cgroup below it, in the last hierarchy alone.
        let cgroup = Cgroup::create(hierarchies, test.path()).unwrap();
        let below = cgroup.directories().last().unwrap().join("below");
        fs::create_dir(&below).unwrap();
        assert!(!cgroup.remove_unused().unwrap(), "{way}");
        assert!(below.is_dir());
        cgroup.remove().unwrap();
        assert!(!cgroup.exists().unwrap() && test.is_gone(), "{way}");
    }
}

#[test]
fn removal_names_what_does_not_end() {
    let test = TestPath::new("stays");
    let hierarchies = Hierarchies::detect().unwrap();
    let cgroup = Cgroup::create(&hierarchies, test.path()).unwrap();
    let mut child = TestChild::waiting();
    cgroup.add(&child.identity()).unwrap();
    let begun = Instant::now();
    let Err(Error::Remains { remaining, .. }) = cgroup.remove() else {
        panic!("it was removed with a process in it");
    };
    assert!(begun.elapsed() < vc_cgroups::REMOVE_LIMIT + Duration::from_secs(1));
    let named: Vec<_> = remaining.iter().map(|one| one.path.clone()).collect();
    assert_eq!(named, cgroup.directories().collect::<Vec<_>>());
    assert!(remaining.iter().all(|one| one.pids.contains(&child.pid())));
    assert!(child.is_running());
    drop(child);
    cgroup.remove().unwrap();
    assert!(test.is_gone());
}
