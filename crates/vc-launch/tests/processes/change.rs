use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use std::os::fd::{AsFd, OwnedFd};
use vc_launch::{Addition, Error, LaunchedProcess, Launcher, MountTree, Propagation, TreeChange};

use crate::probe;

fn add(at: &str, source: &Path, read_only: bool) -> (Addition, OwnedFd) {
    let fd = open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let at = at.to_owned();
    let addition = Addition {
        at,
        read_only,
        propagation: Propagation::Private,
    };
    (addition, fd)
}

/// A process that runs with an empty `share` in its root.
fn running(launcher: &Launcher) -> LaunchedProcess {
    let (mut spec, passed) = probe::spec(&["sleep"]);
    spec.root = Some(MountTree::new().dir("share", 0o755));
    launcher.launch(spec, passed).wait().unwrap()
}

fn apply(change: TreeChange, process: &LaunchedProcess) -> Result<(), Error> {
    change.apply(Launcher::OWN_PROGRAM.as_ref(), "a probe", process.as_fd())
}

pub(crate) fn a_running_process_gets_and_loses_mounts() {
    let launcher = probe::launcher();
    let process = running(&launcher);
    let seen = format!("/proc/{}/root/share", process.pid());
    let seen = Path::new(&seen);
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("a"), "of the host").unwrap();

    let change = TreeChange {
        add: vec![
            add("share/fixed", source.path(), true),
            add("share/open", source.path(), false),
            add("share/file", &source.path().join("a"), true),
        ],
        remove: Vec::new(),
    };
    apply(change, &process).unwrap();
    assert_eq!(
        std::fs::read_to_string(seen.join("fixed/a")).unwrap(),
        "of the host"
    );
    assert_eq!(
        std::fs::read_to_string(seen.join("file")).unwrap(),
        "of the host"
    );
    let refused = std::fs::write(seen.join("fixed/b"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    std::fs::write(seen.join("open/b"), "").unwrap();
    // The tree itself stays what it was.
    let refused = std::fs::write(seen.join("c"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("share/fixed"));

    let change = TreeChange {
        add: vec![add("share/other", source.path(), true)],
        remove: ["share/open", "share/file", "share/never-there"]
            .map(str::to_owned)
            .to_vec(),
    };
    apply(change, &process).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(seen)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["fixed", "other"]);
    assert!(source.path().join("b").exists());
}

/// A tmpfs with a file of this name.
fn mount_with(place: &Path, name: &str) {
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::write(place.join(name), "").unwrap();
}

pub(crate) fn a_slave_follows_the_host_and_never_leads_it() {
    let launcher = probe::launcher();
    let process = running(&launcher);
    let seen = format!("/proc/{}/root/share", process.pid());
    let seen = Path::new(&seen);
    // What is mounted in it goes with the namespace of these tests.
    let source = tempfile::tempdir().unwrap();
    let source = source.path();
    mount_bind(source, source).unwrap();
    mount_change(source, MountPropagationFlags::SHARED).unwrap();
    std::fs::create_dir(source.join("d")).unwrap();
    let slave = |at: &str| {
        let (mut addition, fd) = add(at, source, false);
        addition.propagation = Propagation::Slave;
        (addition, fd)
    };
    let change = TreeChange {
        add: vec![slave("share/slave"), add("share/private", source, false)],
        remove: Vec::new(),
    };
    apply(change, &process).unwrap();

    mount_with(&source.join("d"), "late");
    std::fs::create_dir(source.join("d/below")).unwrap();
    mount_with(&source.join("d/below"), "deep");
    let names = |place: &str| probe::listing(seen.join(place).to_str().unwrap());
    assert_eq!(names("slave/d"), ["below", "late"]);
    assert_eq!(names("slave/d/below"), ["deep"]);
    assert!(names("private/d").is_empty());
    unmount(source.join("d/below"), UnmountFlags::empty()).unwrap();
    assert!(names("slave/d/below").is_empty());

    // Over the source itself too, which lies over the slave then; both are taken out.
    mount_with(source, "over");
    let change = TreeChange {
        add: Vec::new(),
        remove: ["share/slave", "share/private"].map(str::to_owned).to_vec(),
    };
    apply(change, &process).unwrap();
    assert!(probe::listing(seen.to_str().unwrap()).is_empty());
    // The host has what it had.
    assert_eq!(probe::listing(source.to_str().unwrap()), ["over"]);
    unmount(source, UnmountFlags::empty()).unwrap();
    let d = source.join("d");
    assert_eq!(probe::listing(d.to_str().unwrap()), ["below", "late"]);
    unmount(&d, UnmountFlags::empty()).unwrap();
    unmount(source, UnmountFlags::empty()).unwrap();
}

pub(crate) fn a_change_that_fails_says_where() {
    let launcher = probe::launcher();
    let process = running(&launcher);
    let source = tempfile::tempdir().unwrap();
    std::fs::create_dir(source.path().join("inner")).unwrap();
    for (place, what) in [
        ("share/x/y", "no such directory"),
        ("../share/x", "not below the root"),
        ("share/bound/new", "in what is bound"),
        ("share/bound", "there already"),
    ] {
        let first = TreeChange {
            add: vec![add("share/bound", source.path(), false)],
            remove: vec!["share/bound".to_owned()],
        };
        apply(first, &process).unwrap();
        let change = TreeChange {
            add: vec![add(place, source.path(), false)],
            remove: Vec::new(),
        };
        let error = apply(change, &process).unwrap_err();
        assert!(matches!(error, Error::TreeChange { .. }), "{what}: {error}");
        assert!(error.to_string().contains(place), "{error}");
    }
    assert!(!source.path().join("new").exists());
}
