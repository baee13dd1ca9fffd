use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use std::os::fd::{AsFd, OwnedFd};
use vc_launch::{Addition, Error, LaunchedProcess, Launcher, MountTree, TreeChange};

use crate::probe;

fn add(at: &str, source: &Path, read_only: bool) -> (Addition, OwnedFd) {
    let fd = open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let at = at.to_owned();
    (Addition { at, read_only }, fd)
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
