//! What becomes of mounts that come and go below the source of a bind mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use test_vm::Host;

use super::super::host;
use super::super::host_side::create;
use super::super::oci::bundle;

/// How long the guest may take to say that it has forgotten what nobody uses any more.
const FORGOTTEN_LIMIT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is mounted at a place, until this goes.
struct Mounted(PathBuf);

impl Mounted {
    fn new(args: &[&str], place: &Path) -> Self {
        let mounted = Self(place.to_owned());
        let done = Command::new("mount").args(args).arg(place).status();
        assert!(done.unwrap().success());
        mounted
    }

    /// As an administrator does it: not while somebody uses it.
    fn unmount(&self) -> bool {
        let done = Command::new("umount").arg(&self.0).output();
        done.unwrap().status.success()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What was unmounted before is no error.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

fn say(host: &Host, script: &str) -> String {
    host.virtc(["exec", "c1", "/bin/sh", "-c", script])
        .expect_code(0)
        .out()
}

#[test]
fn later_mounts_of_the_host_come_to_slaves_and_go() {
    let host = host();
    let source = host.dir("source");
    let directory = bundle(&host, &["/bin/sleep", "1000"], |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        for (place, options) in [
            ("/slave", ["bind", "rslave", "rw"]),
            ("/one", ["bind", "slave", "ro"]),
            ("/private", ["bind", "rprivate", "rw"]),
            ("/last", ["rslave", "bind", "rprivate"]),
            ("/shared", ["bind", "rshared", "rw"]),
        ] {
            mounts.push(json!({
                "destination": place, "type": "bind", "source": source, "options": options,
            }));
        }
    });
    let onto_itself = ["--make-shared", "--bind", source.to_str().unwrap()];
    let shared = Mounted::new(&onto_itself, &source);
    let place = source.join("d");
    fs::create_dir(&place).unwrap();
    create(&host, &directory, "c1");
    host.virtc(["start", "c1"]).expect_code(0);
    let all = "cd /; ls slave/d one/d private/d last/d shared/d";
    let empty = "slave/d:\n\none/d:\n\nprivate/d:\n\nlast/d:\n\nshared/d:\n";
    let names = |out: String| {
        let lines = out.lines().map(str::to_owned);
        let mut names: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
        names.sort();
        names
    };
    assert_eq!(names(say(&host, all)), names(empty.to_owned()));

    let late = Mounted::new(&["-t", "tmpfs", "tmpfs"], &place);
    fs::write(place.join("file"), "late\n").unwrap();
    // At once: the guest keeps no names of what follows the host.
    let seen = say(&host, "cat /slave/d/file /one/d/file");
    assert_eq!(seen, "late\nlate\n");
    let rest = say(&host, "cd /; ls -A private/d; ls -A last/d; ls -A shared/d");
    assert_eq!(rest, "", "only what asks for it has it");
    say(&host, "echo new >/slave/d/new");
    assert_eq!(fs::read_to_string(place.join("new")).unwrap(), "new\n");
    let refused = host.virtc(["exec", "c1", "/bin/touch", "/one/d/other"]);
    refused
        .expect_code(1)
        .expect_err(&["Read-only file system"]);

    let end = Instant::now() + FORGOTTEN_LIMIT;
    while !late.unmount() {
        assert!(Instant::now() < end, "the guest keeps what nobody uses");
        std::thread::sleep(LOOK_EVERY);
    }
    assert_eq!(names(say(&host, all)), names(empty.to_owned()));

    let again = Mounted::new(&["-t", "tmpfs", "tmpfs"], &place);
    fs::write(place.join("file"), "again\n").unwrap();
    assert_eq!(say(&host, "cat /slave/d/file"), "again\n");
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    // Nothing of the host's was unmounted, and nobody keeps it.
    assert!(place.join("file").exists());
    assert!(again.unmount() && shared.unmount());
}
