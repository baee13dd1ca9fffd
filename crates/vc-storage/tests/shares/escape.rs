use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;
use vc_storage::{Access, Rights, host_system};

use crate::fuse::{Client, ROOT};
use crate::harness::{ROOT_USER, Served, one, serve};

const NOT_PERMITTED: i32 = 13;
const NO_ENTRY: i32 = 2;

/// A directory with a file that everyone may read, one that only root may, and links out.
fn files() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(dir.path(), 0o755);
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    for (name, bits) in [("open", 0o644), ("secret", 0o600)] {
        std::fs::write(dir.path().join(name), name).unwrap();
        mode(&dir.path().join(name), bits);
    }
    symlink("/etc/shadow", dir.path().join("absolute")).unwrap();
    symlink("../../../../etc/shadow", dir.path().join("relative")).unwrap();
    symlink("/", dir.path().join("root")).unwrap();
    dir
}

/// The strongest share that there is: root's, and writable.
fn strongest() -> (TempDir, Served, Client) {
    let dir = files();
    let plan = one(Rights::Invoker(ROOT_USER), dir.path(), Access::ReadWrite);
    let mut served = serve(plan);
    let client = served.client();
    (dir, served, client)
}

pub(crate) fn what_is_shared_can_be_read() {
    let dir = files();
    let mut served = serve(one(Rights::Nothing, dir.path(), Access::ReadOnly));
    let mut client = served.client();
    assert_eq!(client.names(ROOT).unwrap(), ["shared"]);
    let open = client.walk("shared/open").unwrap();
    assert_eq!(client.read(open.node).unwrap(), b"open");
}

pub(crate) fn what_is_not_world_readable_is_refused() {
    let dir = files();
    let mut served = serve(one(Rights::Nothing, dir.path(), Access::ReadOnly));
    let mut client = served.client();
    let secret = client.walk("shared/secret").unwrap();
    assert_eq!(client.read(secret.node), Err(NOT_PERMITTED));
    // Whoever the guest says that it is.
    client.uid = 1000;
    assert_eq!(client.read(secret.node), Err(NOT_PERMITTED));
}

pub(crate) fn no_name_leads_out_of_a_share() {
    let (_dir, _served, mut client) = strongest();
    let shared = client.walk("shared").unwrap();
    let sub = client.walk("shared/sub").unwrap();
    for (name, at) in [
        ("the root", ROOT),
        ("a source", shared.node),
        ("a directory", sub.node),
    ] {
        for tried in [
            "../etc/shadow",
            "/etc/shadow",
            "../../../../../etc/shadow",
            "../proc/self/fd/0",
            "/proc/1/root/etc/shadow",
            "/proc/self/root/etc/shadow",
            "etc/shadow",
        ] {
            assert!(client.lookup(at, tried).is_err(), "{tried} from {name}");
        }
    }
    // The way up ends at the directory that one stands in.
    for (at, own) in [
        (ROOT, None),
        (shared.node, Some(shared)),
        (sub.node, Some(sub)),
    ] {
        let Ok(up) = client.lookup(at, "..") else {
            continue;
        };
        if let Some(own) = own {
            assert_eq!(up.inode, own.inode);
        } else {
            assert_eq!(client.names(up.node).unwrap(), ["shared"]);
        }
        assert!(client.lookup(up.node, "proc").is_err());
        assert!(client.lookup(up.node, "etc").is_err());
    }
}

pub(crate) fn links_out_lead_nowhere() {
    let (_dir, _served, mut client) = strongest();
    for name in ["absolute", "relative"] {
        let link = client.walk("shared").unwrap().node;
        let link = client.lookup(link, name).unwrap();
        assert_eq!(link.mode & 0o170_000, 0o120_000, "it is not followed");
        assert!(client.readlink(link.node).unwrap().contains("etc/shadow"));
        assert!(client.read(link.node).is_err());
    }
    let shared = client.walk("shared").unwrap().node;
    for name in ["absolute/", "root/etc/shadow", "root/proc/self/fd/0"] {
        assert!(client.lookup(shared, name).is_err(), "{name}");
    }
}

pub(crate) fn nothing_can_be_changed_by_a_crooked_name() {
    let (dir, served, mut client) = strongest();
    let shared = client.walk("shared").unwrap().node;
    let outside = "../../made-by-a-guest";
    for at in [ROOT, shared] {
        for name in [
            outside,
            "../made-by-a-guest",
            "/made-by-a-guest",
            "/tmp/made-by-a-guest",
        ] {
            // It may be taken as a name in the directory itself, see below.
            let _ = client.create(at, name);
            assert!(client.mkdir(at, name).is_err(), "mkdir {name}");
            assert!(client.symlink(at, name, "x").is_err(), "symlink {name}");
            assert!(
                client.mknod(at, name, 0o100_644, 0).is_err(),
                "mknod {name}"
            );
        }
    }
    let open = client.walk("shared/open").unwrap();
    assert!(client.rename(shared, "open", outside).is_err());
    assert!(client.link(open.node, shared, outside).is_err());
    assert!(client.unlink(shared, "../../proc/sys/fs/nr_open").is_err());
    drop(served);
    // What was there before and what was taken for a plain name is all that is there.
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "made-by-a-guest")
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["absolute", "open", "relative", "root", "secret", "sub"]
    );
    let around = dir.path().ancestors().skip(1);
    assert!(
        around
            .into_iter()
            .all(|path| !path.join("made-by-a-guest").exists())
    );
}

pub(crate) fn nothing_of_the_host_is_in_the_system_share() {
    let plan = host_system::plan("/".as_ref()).unwrap();
    let mut served = serve(plan);
    let mut client = served.client();
    let shown = client.names(ROOT).unwrap();
    assert!(shown.contains(&"usr".to_owned()) && shown.contains(&"etc".to_owned()));
    for name in shown {
        assert!(
            [
                "bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media",
                "mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var",
            ]
            .contains(&name.as_str()),
            "{name}"
        );
    }
    for empty in [
        "boot", "dev", "home", "proc", "root", "run", "sys", "tmp", "var/log",
    ] {
        let entry = client.walk(empty).unwrap();
        assert_eq!(client.names(entry.node).unwrap(), [""; 0], "{empty}");
    }
    let passwd = client.walk("etc/passwd").unwrap();
    let passwd = client.read(passwd.node).unwrap();
    assert_eq!(
        passwd,
        std::fs::read("/etc/passwd").unwrap()[..passwd.len()]
    );
    let shadow = client.walk("etc/shadow").unwrap();
    assert_eq!(client.read(shadow.node), Err(NOT_PERMITTED));
    assert_eq!(client.lookup(ROOT, "no-such-directory"), Err(NO_ENTRY));
    let tmp = client.walk("tmp").unwrap();
    let etc = client.walk("etc").unwrap();
    for directory in [ROOT, tmp.node, etc.node] {
        assert!(client.create(directory, "made-by-a-guest").is_err());
    }
}
