use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use serde_json::json;
use vc_launch::{
    BindSource, DescriptorUse, LaunchSpec, MountTree, Namespaces, PassedFd, Propagation, TreeNode,
    User,
};

use crate::probe;

const READ_ONLY: i32 = 30;

fn source(path: &Path) -> PassedFd {
    let fd = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    PassedFd::new(DescriptorUse::MountSource(0), fd)
}

fn with_tree(args: &[&str], tree: MountTree) -> (LaunchSpec, Vec<PassedFd>) {
    let (mut spec, passed) = probe::spec(args);
    spec.root = Some(tree);
    (spec, passed)
}

pub(crate) fn nothing_of_the_host_is_in_the_tree() {
    let tree = MountTree::new()
        .dir("share/tmp", 0o1777)
        .symlink("share/out", "../../../etc/shadow")
        .with(
            "proc/sys/fs/nr_open",
            TreeNode::File {
                content: "1000\n".into(),
                mode: 0o444,
            },
        )
        .with("proc/self/fd", TreeNode::OwnDescriptors);
    let tried = [
        "/proc/self",
        "/proc/self/fd/..",
        "/proc/sys/fs/nr_open",
        "/../etc/shadow",
        "/share/out",
        "/share/..",
    ];
    let (spec, passed) = with_tree(&[&["try"], &tried[..]].concat(), tree.clone());
    let said = probe::say(spec, passed);
    assert_eq!(said["/proc/self"]["read"], json!(["fd"]));
    assert_eq!(said["/proc/self/fd/.."]["read"], json!(["fd"]));
    assert_eq!(said["/proc/sys/fs/nr_open"]["read"], "1000\n");
    assert_eq!(said["/../etc/shadow"]["read"], 2);
    assert_eq!(said["/share/out"]["read"], 2);
    assert_eq!(said["/share/.."]["read"], json!(["proc", "share"]));
    assert_eq!(said["/share/.."]["write"], READ_ONLY);

    let (mut spec, passed) = with_tree(&[], tree);
    spec.user = Some(User::NOBODY);
    spec.capabilities = Some(Vec::new());
    let said = probe::say(spec, passed);
    assert_eq!(said["root"], json!(["proc", "share"]));
    assert_eq!(said["cwd"], "/");
}

/// A directory with a file system of its own below it, in this process's namespace.
struct TwoFileSystems {
    dir: tempfile::TempDir,
}

impl TwoFileSystems {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("below");
        std::fs::create_dir(&below).unwrap();
        rustix::mount::mount(
            "tmpfs",
            &below,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        std::fs::write(below.join("inside"), "x").unwrap();
        Self { dir }
    }

    fn tree(&self, recursive: bool, read_only: bool) -> (MountTree, PassedFd) {
        let node = TreeNode::Bind {
            source: BindSource(0),
            recursive,
            read_only,
            propagation: Propagation::Private,
        };
        (MountTree::new().with("a/b", node), source(self.dir.path()))
    }
}

impl Drop for TwoFileSystems {
    fn drop(&mut self) {
        let below = self.dir.path().join("below");
        rustix::mount::unmount(below, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

pub(crate) fn read_only_holds_below_the_mount_too() {
    let two = TwoFileSystems::new();
    for read_only in [true, false] {
        let (tree, source) = two.tree(true, read_only);
        let (spec, mut passed) = with_tree(&["try", "/a/b", "/a/b/below"], tree);
        passed.push(source);
        let said = probe::say(spec, passed);
        let expected = if read_only {
            json!(READ_ONLY)
        } else {
            json!(null)
        };
        assert_eq!(said["/a/b"]["write"], expected);
        assert_eq!(said["/a/b/below"]["write"], expected);
    }
}

pub(crate) fn other_mounts_come_only_when_asked_for() {
    let two = TwoFileSystems::new();
    for (recursive, expected) in [(true, json!(["inside"])), (false, json!([]))] {
        let (tree, source) = two.tree(recursive, true);
        let (spec, mut passed) = with_tree(&["try", "/a/b/below"], tree);
        passed.push(source);
        assert_eq!(probe::say(spec, passed)["/a/b/below"]["read"], expected);
    }
}

pub(crate) fn a_tree_leaves_no_mount_on_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().file_name().unwrap().to_str().unwrap();
    let tree = MountTree::new().bind("a", BindSource(0), true);
    let (spec, mut passed) = with_tree(&["sleep"], tree);
    passed.push(source(dir.path()));
    let launcher = probe::launcher();
    let process = launcher.launch(spec, passed).wait().unwrap();
    let mounts = |who: &str| std::fs::read_to_string(format!("/proc/{who}/mountinfo")).unwrap();
    assert!(mounts(&process.pid().to_string()).contains(name));
    assert!(!mounts("self").contains(name));
    drop(process);
    assert!(!mounts("self").contains(name));
    // Nothing holds the directory any longer.
    std::fs::remove_dir(dir.path()).unwrap();
}

pub(crate) fn namespaces_are_new() {
    let own = probe::say_here();
    let (mut spec, passed) = probe::spec(&[]);
    spec.namespaces = Namespaces {
        mount: true,
        net: true,
        ipc: true,
        uts: true,
    };
    let said = probe::say(spec, passed);
    for index in 0..4 {
        assert!(said["namespaces"][index].is_string());
        assert_ne!(said["namespaces"][index], own["namespaces"][index]);
    }
}
