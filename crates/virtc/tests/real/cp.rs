//! Copying into and out of a running container.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use test_vm::{Host, Outcome, Running};

use super::host;
use super::host_side::{state, wait_until};
use super::oci::bundle;

/// A throw-away machine called `box` whose command waits for the end of its input.
fn running(host: &Host) -> Running {
    let mut run = host.start(["run", "--name", "box", "--tmpfs", "/guest", "--", "cat"]);
    run.wait_until("a running container", |_| {
        let state = host.virtc(["state", "box"]).out();
        state.contains("\"running\"").then_some(())
    });
    run
}

fn cp(host: &Host, args: &[&str]) -> Outcome {
    host.virtc(["cp"].iter().chain(args))
}

fn shell(host: &Host, script: &str) -> String {
    let outcome = host.virtc(["exec", "box", "sh", "-c", script]);
    outcome.expect_code(0).out()
}

/// A tree with what a copy has to keep.
fn tree(at: &Path) {
    fs::create_dir_all(at.join("sub")).unwrap();
    fs::write(at.join("sub/file"), "of the host\n").unwrap();
    fs::set_permissions(at.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
    let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(at.join("sub/file"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    symlink("sub/file", at.join("link")).unwrap();
    File::open(at.join("sub"))
        .unwrap()
        .set_modified(time)
        .unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn files_and_directories_go_in_and_come_out_as_they_are() {
    let host = host();
    let run = running(&host);
    let dir = host.dir("copies");
    let at = |name: &str| dir.join(name);
    tree(&at("tree"));

    // What only the guest has: a tmpfs, and the writable layer of a throw-away root.
    for place in ["/guest/new", "/tmp/new"] {
        cp(&host, &[text(&at("tree")), &format!("box:{place}")]).expect_code(0);
        let script = format!(
            "cd {place}; cat link; stat -c '%a %Y %u' sub/file; stat -c %Y sub; readlink link"
        );
        let seen = "of the host\n640 1000000000 0\n1000000000\nsub/file\n";
        assert_eq!(shell(&host, &script), seen, "{place}");
    }
    assert!(shell(&host, "stat -f -c %T /guest").contains("tmpfs"));
    cp(&host, &["box:/guest/new", text(&at("out"))]).expect_code(0);
    let file = fs::metadata(at("out/sub/file")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.mtime()), (0o640, 1_000_000_000));
    assert_eq!(fs::metadata(at("out/sub")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(
        fs::read_link(at("out/link")).unwrap(),
        Path::new("sub/file")
    );

    // Into a directory that exists, the contents of one, and a link that is followed.
    cp(&host, &["box:/guest/new", text(&at("out"))]).expect_code(0);
    assert!(at("out/new/sub/file").exists());
    cp(&host, &[&format!("{}/.", text(&at("tree"))), "box:/guest"]).expect_code(0);
    assert_eq!(shell(&host, "cat /guest/sub/file"), "of the host\n");
    cp(&host, &["-L", "box:guest/link", text(&at("followed"))]).expect_code(0);
    assert_eq!(fs::read_to_string(at("followed")).unwrap(), "of the host\n");
    cp(&host, &["box:/guest/link", text(&at("copied"))]).expect_code(0);
    assert!(fs::symlink_metadata(at("copied")).unwrap().is_symlink());

    // One file over another, and a program's rights, which a guest cannot give on the host.
    fs::write(at("one"), "one").unwrap();
    cp(&host, &[text(&at("one")), "box:/guest/sub/file"]).expect_code(0);
    assert_eq!(
        shell(
            &host,
            "cat /guest/sub/file; chmod 6755 /guest/sub/file; chown 7:8 /guest/sub/file; chmod u+s /guest/sub/file"
        ),
        "one"
    );
    cp(&host, &["-a", "box:/guest/sub/file", text(&at("one"))]).expect_code(0);
    let one = fs::metadata(at("one")).unwrap();
    assert_eq!((one.uid(), one.gid(), one.mode() & 0o7777), (7, 8, 0o755));
    cp(&host, &["box:/guest/sub/file", text(&at("one"))]).expect_code(0);
    assert_eq!(fs::metadata(at("one")).unwrap().uid(), 0);

    run.wait().expect_code(0);
}

#[test]
fn a_large_file_goes_both_ways_unchanged() {
    let host = host();
    let run = running(&host);
    let dir = host.dir("copies");
    let (from, back) = (dir.join("from"), dir.join("back"));
    // Bytes that repeat nowhere near each other.
    let mut state = 1u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let bytes: Vec<u8> = (0..8 << 20).flat_map(|_| next()).collect();
    fs::write(&from, &bytes).unwrap();
    cp(&host, &[text(&from), "box:/tmp/large"]).expect_code(0);
    let digest = shell(&host, "sha256sum </tmp/large");
    let own = std::process::Command::new("sha256sum")
        .arg(&from)
        .output()
        .unwrap();
    assert_eq!(digest[..64], String::from_utf8(own.stdout).unwrap()[..64]);
    cp(&host, &["box:/tmp/large", text(&back)]).expect_code(0);
    assert!(fs::read(back).unwrap() == bytes);
    run.wait().expect_code(0);
}

#[test]
fn archives_come_from_stdin_and_go_to_stdout() {
    let host = host();
    let run = running(&host);
    let dir = host.dir("copies");
    tree(&dir.join("tree"));
    let tar = |args: &[&str]| {
        let mut command = std::process::Command::new("tar");
        command.args(args).current_dir(&dir);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let archive = tar(&["-cf", "-", "tree"]);
    let mut into = host.start(["cp", "-", "box:/guest"]);
    into.feed(archive);
    into.wait().expect_code(0);
    assert_eq!(shell(&host, "cat /guest/tree/link"), "of the host\n");

    let out = dir.join("out.tar");
    let status = host
        .command(["cp", "box:/guest/tree", "-"])
        .stdout(File::create(&out).unwrap())
        .stderr(Stdio::inherit())
        .status()
        .unwrap();
    assert!(status.success());
    let listed = String::from_utf8(tar(&["-tf", text(&out)])).unwrap();
    let mut names: Vec<_> = listed.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["tree/", "tree/link", "tree/sub/", "tree/sub/file"]);

    // What is no archive, and a place that is none for one.
    let mut odd = host.start(["cp", "-", "box:/guest"]);
    odd.feed(b"no archive".to_vec());
    odd.wait()
        .expect_code(1)
        .expect_err(&["box:/guest", "tar archive"]);
    let mut nowhere = host.start(["cp", "-", "box:/nowhere"]);
    // The end of the input does not come.
    let mut input = nowhere.stdin();
    let _ = input.write_all(&[0; 512]);
    nowhere.wait().expect_code(1).expect_err(&["/nowhere"]);
    drop(input);
    run.wait().expect_code(0);
}

#[test]
fn what_cannot_be_copied_is_named() {
    let host = host();
    let run = running(&host);
    let dir = host.dir("copies");
    let at = |name: &str| -> PathBuf { dir.join(name) };
    fs::write(at("file"), "mine").unwrap();
    fs::create_dir(at("dir")).unwrap();
    let refused = |args: &[&str], code: i32, said: &[&str]| {
        cp(&host, args).expect_code(code).expect_err(said);
    };
    refused(
        &["box:/nowhere/x", text(&dir)],
        1,
        &["box:/nowhere/x", "No such file"],
    );
    refused(
        &[text(&at("missing")), "box:/"],
        1,
        &["missing", "No such file"],
    );
    refused(
        &["box:/etc/passwd", text(&at("no/where"))],
        1,
        &["no", "No such file"],
    );
    refused(
        &[text(&at("file")), "box:/no/where"],
        1,
        &["box:/no/where", "No such file"],
    );
    refused(&[text(&at("file")), "box:/tmp/new/"], 1, &["directory"]);
    refused(
        &[text(&at("dir")), "box:/etc/passwd"],
        1,
        &["passwd", "directory"],
    );
    refused(&["box:/guest", text(&at("file"))], 1, &["is no directory"]);
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "mine");
    refused(&["box:/dev/null", text(&dir)], 1, &["null", "device"]);
    refused(&["a", "b"], 2, &["ID:PATH"]);
    refused(&["box:/a", "box:/b"], 2, &["both sides"]);
    refused(&["box:", text(&dir)], 2, &["no path"]);
    refused(
        &["nobody:/a", text(&dir)],
        1,
        &["container nobody does not exist"],
    );
    host.virtc(["pause", "box"]).expect_code(0);
    refused(&["box:/etc/passwd", text(&dir)], 1, &["paused"]);
    host.virtc(["resume", "box"]).expect_code(0);
    run.wait().expect_code(0);
}

#[test]
fn a_container_of_a_bundle_is_copied_from_while_it_runs() {
    let mut host = host();
    let directory = bundle(&host, &["/bin/sleep", "1000"], |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts
            .push(serde_json::json!({"destination": "/guest", "type": "tmpfs", "source": "tmpfs"}));
        // Whatever the container's own processes may not.
        config["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1000});
    });
    let out = host.dir("out");
    let status = host
        .command(["create", "--bundle", text(&directory), "c1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .status()
        .unwrap();
    assert!(status.success());
    cp(&host, &["c1:/etc/marker", text(&out)])
        .expect_code(1)
        .expect_err(&["c1", "not running"]);
    host.virtc(["start", "c1"]).expect_code(0);
    cp(
        &host,
        &[text(&directory.join("config.json")), "c1:/guest/config"],
    )
    .expect_code(0);
    cp(&host, &["c1:/guest/config", text(&out)]).expect_code(0);
    assert_eq!(
        fs::read(out.join("config")).unwrap(),
        fs::read(directory.join("config.json")).unwrap()
    );
    cp(&host, &["c1:/etc", text(&out)]).expect_code(0);
    assert_eq!(
        fs::read_to_string(out.join("etc/marker")).unwrap(),
        "made by the test\n"
    );
    host.virtc(["kill", "c1", "KILL"]).expect_code(0);
    wait_until("the container ends", || {
        state(&host, "c1")["status"] == "stopped"
    });
    cp(&host, &["c1:/etc/marker", text(&out)])
        .expect_code(1)
        .expect_err(&["c1", "not running"]);
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    host.expect_nothing_left();
}
